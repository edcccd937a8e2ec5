"""Checksums of single files, as ``algorithm:digest``; ``git`` is the id of the git blob.

Of several, one must agree. A file that is not listed has no published checksum.
"""

from __future__ import annotations

from collections.abc import Mapping

CHECKSUMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ncf-ml-1m": {
        # As published, with four columns; and without the timestamps.
        "ml-1m.train.rating": (
            "git:31ba384fd58dac8fbd09d2dfc6616431f3563ab5",
            "sha256:d0d5027b3f9468eacebab8514330d7ac9894a2a8e7ce63d0c7fa0e5b38556024",
        ),
        "ml-1m.test.rating": ("git:1b79e03c96710c3b0c35deb19155ef74f7965a02",),
        "ml-1m.test.negative": ("git:c82844fb99d021f94751a6f915a230a1e8b8da92",),
    },
    "adressa-macr": {
        "train.txt": ("git:bd8920e78e87ce47552862cdacc3695ba6fb42c6",),
        "test.txt": ("git:74774391c38b6cebf9251d322f7aec2fcec075d0",),
    },
    "ml-100k": {
        "u.data": ("sha256:06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",),
        "u.item": ("sha256:553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",),
        "u1.base": ("sha256:ce253ec86c448b44fb3ba9a30d12dcfc2e9210cbde71efada3730c22e9ac212a",),
        "u1.test": ("sha256:18c6014a4b2c7324f250a63f8904a7b16b2b19f911129e346141507b0cbac950",),
        "u2.base": ("sha256:6c06f0b5df4b256da1a994f3ac66edc8da4d3f09bc9282df6b14d893366d703e",),
        "u2.test": ("sha256:4de658d1e04ed9104629509a2e2528fce833ac8e048280183f1df167632038c3",),
        "u3.base": ("sha256:afdc155c291c6edc41c0407e39d7462eb98d341e064f0b0a12175b80b3c4af5d",),
        "u3.test": ("sha256:0f548b51c78327de4c156461d3e430b7e5579fe2b5681586a59416e48fd35f6d",),
        "u4.base": ("sha256:219f0f4d40dfe9c5141d425f53fa91ee23ed275f14e280bbf1b50117afb064ca",),
        "u4.test": ("sha256:7c02ad0a1e7ab1083c8b9d4b627203a051dd7b5eab46d99fa44de33470de8db9",),
        "u5.base": ("sha256:a9574e59ce961eec2121627760b6e9b0974ce1637b3fe69ac32cb14a4bfab485",),
        "u5.test": ("sha256:351cc52e0d15b6c721466276fc24671d40936899e3d01fadeaf312915b8c5634",),
    },
}
