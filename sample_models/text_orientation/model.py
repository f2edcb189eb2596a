"""The model's file: PaddleOCR's text direction classifier, as the package `rapidocr` carries it."""

from core.errors import ModelError
from sample_models.text_orientation.packaged import PackagedFile

MODEL = PackagedFile(
    package="rapidocr",
    path="rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    requirements="requirements-text-orientation.txt",
    error=ModelError,
)
