"""Films in files: frames come as they were written, upright, at their rate; damage is named."""

from __future__ import annotations

import sys
from fractions import Fraction

import av
import pytest
import torch

from stepsight.errors import DataFormatError, UserError
from stepsight.predicting.film import FilmWriter, frame_rate, frames

NTSC = Fraction(30000, 1001)
LOSS = 8.0  # mean of 255 levels: H.264 has colours at half the resolution; unlike frames: 60
QUARTER = 1 << 16  # 1 in the fixed point of matrices
CLOCKWISE = (0, QUARTER, 0, -QUARTER, 0, 0, 0, 0, 1 << 30)  # QuickTime: x' = -y, y' = x, y down
HALF = (-QUARTER, 0, 0, 0, -QUARTER, 0, 0, 0, 1 << 30)


def written(path, pictures, rate=NTSC):
    with FilmWriter(path, rate) as writer:
        for picture in pictures:
            writer.add(picture)
    return path


def test_a_film_is_read_as_it_was_written(moving, tmp_path):
    pictures = moving(5, (32, 48))
    path = written(tmp_path / "a.mp4", pictures)
    found = list(frames(path))
    assert len(found) == 5 and frame_rate(path) == NTSC
    assert all(one.dtype == torch.uint8 and one.shape == (3, 32, 48) for one in found)
    errors = [(a.float() - b.float()).abs().mean() for a, b in zip(found, pictures)]
    assert max(errors) < LOSS
    assert [one.name for one in tmp_path.iterdir()] == ["a.mp4"]


def test_colours_are_kept_whatever_matrix_a_film_states_or_not(tmp_path):
    """A plain red is 1 to 2 levels off where the right matrix is used, 10 to 30 where not."""
    red = torch.tensor([200, 30, 40], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    (stated,) = frames(written(tmp_path / "stated.mp4", [red]))
    assert (stated.float() - red).abs().max() <= 3
    with av.open(str(tmp_path / "none.mp4"), "w") as container:  # as FFmpeg makes it: BT.601
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.options = {"crf": "1"}
        frame = av.VideoFrame.from_ndarray(red.permute(1, 2, 0).numpy().copy(), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (unstated,) = frames(tmp_path / "none.mp4")
    assert (unstated.float() - red).abs().max() <= 3


def test_odd_sides_repeat_their_last_row_and_column(moving, tmp_path):
    (picture,) = moving(1, (31, 17))
    (found,) = frames(written(tmp_path / "a.mp4", [picture]))
    assert found.shape == (3, 32, 18)
    assert (found[:, :31, :17].float() - picture.float()).abs().mean() < LOSS


@pytest.mark.parametrize("matrix,turns", [(CLOCKWISE, -1), (HALF, 2)])
def test_frames_come_upright(matrix, turns, moving, tmp_path):
    (picture,) = moving(1, (32, 48))
    with av.open(str(tmp_path / "phone.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.set_display_matrix(matrix)
        frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).numpy(), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (found,) = frames(tmp_path / "phone.mp4")
    upright = torch.rot90(picture, turns, (1, 2))
    assert found.shape == upright.shape
    assert (found.float() - upright.float()).abs().mean() < LOSS


def test_a_folder_of_frames_states_no_rate(tmp_path):
    assert frame_rate(tmp_path) == 25


@pytest.mark.parametrize("content", [b"", b"no film at all", None])
def test_what_is_no_film_is_named(content, moving, tmp_path):
    path = written(tmp_path / "a.mp4", moving(2, (32, 32)))
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(DataFormatError, match=r"a\.mp4: not readable as a film"):
        list(frames(path))
    with pytest.raises(UserError, match="no such film"):
        frame_rate(tmp_path / "none.mp4")


def test_a_film_without_pyav_names_what_to_install(moving, tmp_path, monkeypatch):
    path = written(tmp_path / "a.mp4", moving(1, (32, 32)))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="uv sync --extra film"):
        list(frames(path))


def test_a_film_that_stops_leaves_nothing(moving, tmp_path):
    with pytest.raises(KeyboardInterrupt), FilmWriter(tmp_path / "a.mp4", NTSC) as writer:
        writer.add(moving(1, (32, 32))[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="another size"):
        written(tmp_path / "a.mp4", [moving(1, (32, 32))[0], moving(1, (16, 16))[0]])


def test_a_film_that_was_cut_off_is_told(moving, tmp_path, capsys):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for picture in moving(40, (32, 32)):
            frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).numpy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len([*frames(path)]) == 40
    assert not capsys.readouterr().err
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < len([*frames(path)]) < 30
    assert "a.mkv: its pictures end after" in capsys.readouterr().err
