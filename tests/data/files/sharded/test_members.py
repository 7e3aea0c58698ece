"""Samples as members of a tar: exact both ways, and nothing damaged gets through."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.sharded.members import decode, encode, escape, is_member
from stepsight.errors import DataFormatError

SIZE = (6, 10)


@pytest.fixture
def sample(full_sample):
    made = full_sample(3, *SIZE)
    labels = made.labels.clone()
    return replace(
        made,
        instances=labels % 5 - 1,
        occluded=~made.flow_valid,
        order=torch.tensor([[0, 1, 5, 9], [2, 2, 3, 300]]),
    )


@pytest.mark.parametrize("key", ["a.b/c", "%2E", "été d'été", "x" * 128, "..", "/", "a_-~b", " "])
def test_keys_come_back_and_have_neither_dots_nor_slashes(key):
    assert unquote(escape(key)) == key
    assert not set("./ ") & set(escape(key))


def test_different_keys_never_meet():
    keys = ["a/b", "a.b", "a%2Fb", "a%2Eb", "a_b"]
    assert len({escape(key) for key in keys}) == len(keys)


def test_every_field_comes_back_bit_for_bit(sample):
    members = encode(sample)
    assert all(map(is_member, members)) and len(members) == 17
    for suffix, data in members.items():
        name = "class_id" if suffix == "json" else suffix.partition(".")[0]
        back, truth = decode(suffix, data, SIZE, "here"), getattr(sample, name)
        if isinstance(truth, torch.Tensor):
            assert back.dtype == truth.dtype and back.is_contiguous()
            assert back.numpy().tobytes() == truth.contiguous().numpy().tobytes(), name
        else:
            assert back == truth


def test_special_floats_come_back_too(sample):
    depth = torch.tensor([[[float("nan"), float("inf"), -0.0, 1e-45]]])
    data = encode(replace(sample, depth=depth))["depth.npy"]
    back = decode("depth.npy", data, (1, 4), "here")
    assert back.numpy().tobytes() == depth.numpy().tobytes()


@pytest.mark.parametrize(("largest", "width"), [(255, 1), (256, 2), (70_000, 4), (1 << 40, 8)])
def test_integers_take_no_more_bytes_than_they_need(sample, largest, width):
    instances = torch.tensor([[0, largest]])
    data = encode(replace(sample, instances=instances))["instances.npy"]
    assert np.load(io.BytesIO(data)).dtype.itemsize == width
    assert decode("instances.npy", data, (1, 2), "here").tolist() == [[0, largest]]


def test_jpeg_is_for_pictures_but_not_for_the_whole_object(sample):
    members = encode(sample, quality=90)
    assert {"image.jpg", "second.jpg", "whole.png"} <= members.keys()
    smooth = torch.linspace(0, 255, 60).byte().view(1, *SIZE).expand(3, -1, -1)
    data = encode(replace(sample, image=smooth), quality=95)["image.jpg"]
    back = decode("image.jpg", data, SIZE, "here")
    assert (back.int() - smooth.int()).abs().max() < 12 and not torch.equal(back, smooth)


def test_the_json_tells_other_readers_what_the_sample_is(sample):
    about = json.loads(encode(sample)["json"])
    assert about == {"key": sample.key, "source": "full", "class_id": sample.class_id}


def array_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture_bytes(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def header_of(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("depth.npy", b""),
        ("depth.npy", array_bytes(np.zeros((1, *SIZE), np.float32))[:-1]),
        ("depth.npy", array_bytes(np.zeros((1, 6, 11), np.float32))),
        ("depth.npy", array_bytes(np.zeros((1, *SIZE), np.int32))),
        ("depth.npy", array_bytes(np.asfortranarray(np.zeros((1, *SIZE), np.float32)[0]))),
        ("depth.npy", header_of((1 << 40, 1 << 20))),
        ("labels.npy", array_bytes(np.zeros(SIZE, np.float32))),
        ("order.npy", array_bytes(np.zeros((2, 3), np.int64))),
        ("order.npy", array_bytes(np.int64(3))),
        ("image.png", b"\x89PNG\r\n\x1a\n"),
        ("image.png", picture_bytes(np.zeros((*SIZE, 3), np.uint8))[:-30]),
        ("image.png", picture_bytes(np.zeros((7, 10, 3), np.uint8))),
        ("image.png", picture_bytes(np.zeros(SIZE, np.uint8))),
        ("image.jpg", picture_bytes(np.zeros((*SIZE, 3), np.uint8), "JPEG")[:200]),
        ("modal.png", picture_bytes(np.zeros(SIZE, np.uint8))),
        ("json", b"{}"),
        ("json", b'{"class_id": "cat"}'),
        ("json", b"\xff"),
        ("json", b"[]"),
    ],
)
def test_members_that_are_not_what_they_should_be_are_refused(suffix, data):
    with pytest.raises(DataFormatError, match="shard 1, a key"):
        decode(suffix, data, SIZE, "shard 1, a key")


def test_an_array_of_pickled_objects_is_refused():
    data = array_bytes(np.array([[[{"a": 1}]]], dtype=object))
    with pytest.raises(DataFormatError, match="here"):
        decode("depth.npy", data, (1, 1), "here")
