"""Text: a pretrained sentence encoder as rating model, and its small students.

``encoder`` reads the published weights, ``training`` fine-tunes or distils its upper blocks,
``rating`` is the rating model on top, ``compress`` makes it smaller and writes it as one file, and
``students`` replaces it by a table of hashed words. What the texts are about is the caller's
affair. Nothing here imports TensorFlow until a function needs it.
"""

from recsys_lib.text.encoder import (
    TextEncoder,
    TextEncoderConfig,
    build_text_encoder,
    load_text_encoder,
)

__all__ = ["TextEncoder", "TextEncoderConfig", "build_text_encoder", "load_text_encoder"]
