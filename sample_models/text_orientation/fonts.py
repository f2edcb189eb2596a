"""The faces that lines are drawn with: no family in two splits, each file known by its hash."""

from core.errors import DataError
from sample_models.text_orientation.packaged import PackagedFile


def _faces(package: str, digests: dict[str, str]) -> tuple[PackagedFile, ...]:
    """Faces of one package, whose files lie in its folder `files`."""
    folder = f"{package.replace('-', '_')}/files"
    requirements = "requirements-text-drawing.txt"
    return tuple(
        PackagedFile(package, f"{folder}/{name}", digest, requirements, DataError)
        for name, digest in digests.items()
    )


FACES = {
    "calibration": (
        *_faces(
            "font-rhd",
            {
                "RedHatDisplay-Regular.ttf": "b3c6289677cb95107738025b86cba835f0283b46dc60d6ace3bff9b9700bfbd0",
                "RedHatDisplay-Italic.ttf": "947a7431db8083115e2aa2db5265a1abcb5a80a56c6d46e2c7862b9fab406b90",
                "RedHatDisplay-SemiBold.ttf": "d8a250cf848e2b52e505776ec15c078dd022d920846d83f21bdb7a56e43c5ad8",
                "RedHatDisplay-Bold.ttf": "861c7d8c0ebe239611dddce4f017d6a5c3389aea28bb31d9ee5bf8cded0826d0",
            },
        ),
        *_faces(
            "font-manrope",
            {
                "Manrope-Regular.ttf": "1e390629ba046af367b66221ffc1b88dcb83e437b5950e4c85a702c9f7628348",
                "Manrope-Medium.ttf": "0b773002799663fa57a5b80c7256e9f3e9b8b62d7d55f07640db345089af9a8b",
                "Manrope-SemiBold.ttf": "9544fef8e59d1a36a19ecba1b8563f9b3395a7ffd3cea7c12267155937dcee36",
                "Manrope-Bold.ttf": "8452aa3443b61a9b007e2dc59b6ed16a40d453c77a4181645e581a0a899c9c5d",
            },
        ),
    ),
    "selection": (
        *_faces(
            "font-source-sans-pro",
            {
                "SourceSansPro-Regular.ttf": "b77f3a700edd0fc0dec73258f882d5c3926c77f5caf6800a201d2166568d2309",
                "SourceSansPro-It.ttf": "36133e9f508b0b4c639e84b2a09855350be0b13700ad729ab519aa78e5c48d20",
                "SourceSansPro-Semibold.ttf": "b440fd42fd5a54e1b252731deca9cc86604bee6ffa99281f5874c3476eb17eae",
                "SourceSansPro-Bold.ttf": "2efc3a95d076f2d04c5928c0ad698b7c61cc302d6f6e79e9643cd3722f7becc2",
            },
        ),
        *_faces(
            "font-source-serif-pro",
            {
                "SourceSerifPro-Regular.ttf": "b4e0771f06d8f6573a535312762b0b2f4fb9a03372239e39b0e7cf203da8ea9a",
                "SourceSerifPro-It.ttf": "13e315bc49bd04ef89228db5fbc793e407d76f9ffadda4e5e08894fb474736eb",
                "SourceSerifPro-Semibold.ttf": "83cc8531f284efb749bbb54f9fb4a0e0450cba918a41df76fabb3a42f2f95899",
                "SourceSerifPro-Bold.ttf": "78041207a9c5166a82d41676d4c87f4c5ba4e1c13ac654e6e9e3538a5a0b0525",
            },
        ),
    ),
    "holdout": (
        *_faces(
            "font-lato",
            {
                "Lato-Regular.ttf": "e82542aed8293f49fc83c4aaea566b1f6b4fc7a9ab5da11e6fb9bc0973b5324b",
                "Lato-Italic.ttf": "3be26bf6973f49df6a7dfd130041017354342bfbb023e6b9610b42daeba6de34",
                "Lato-Bold.ttf": "d7f0b7f2570f2f28b504da1181b4d71b1420b10be2c4fd690927f1c8ee3b19c3",
                "Lato-Black.ttf": "abf64cfa14645043a7c33f76435125f8b3de79c510adb938a1c16085518d4341",
            },
        ),
        *_faces(
            "font-caladea",
            {
                "Caladea-Regular.ttf": "d2f6cad33f191e65b68bd74e6d4f7708080a41b32db635866109df3090265d91",
                "Caladea-Italic.ttf": "9c968bf60ba1e851cdfea77c71e3540c57792f77482dd241acc29d1425569c4e",
                "Caladea-Bold.ttf": "74eda4fc5ffba0d8dc4aa76d41499f5ab76168d9ed6141c6417064c6244db9b6",
                "Caladea-BoldItalic.ttf": "f47a35ad6cd0efa9914d93f9d03c93e30c55da43674bccfabac73b3c0d522c01",
            },
        ),
    ),
}
"""Faces of each split."""
