"""Text: a pretrained sentence encoder as rating model, and its small students.

Nothing here imports TensorFlow until a function needs it.
"""

from recsys_lib.text.encoder import (
    TextEncoder,
    TextEncoderConfig,
    build_text_encoder,
    load_text_encoder,
)

__all__ = ["TextEncoder", "TextEncoderConfig", "build_text_encoder", "load_text_encoder"]
