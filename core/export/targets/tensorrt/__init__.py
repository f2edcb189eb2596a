"""TensorRT: up to 10 by flags of `trtexec`, from 11 on by Q/DQ in the graph."""
