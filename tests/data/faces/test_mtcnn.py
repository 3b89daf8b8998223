"""The three networks on photographs: where the face is, and that nothing beside a picture changes what is found in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import weights
from pipeline.data.faces import detect
from pipeline.data.faces.detection import overlap
from pipeline.data.faces.mtcnn import Mtcnn
from pipeline.errors import WeightsError
from pipeline.params import Faces

FILES = [weights.locate(file) for file in detect.MTCNN]


@pytest.fixture(scope="module")
def find():
    return Mtcnn(FILES, Faces())


@pytest.fixture(scope="module")
def pictures(astronaut):
    """A face in several poses, two faces, none."""
    small = astronaut.resize((160, 160))
    two = Image.new("RGB", (160, 160), "grey")
    two.paste(astronaut.crop((140, 30, 300, 250)).resize((70, 96)), (5, 30))
    two.paste(astronaut.crop((140, 30, 300, 250)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((70, 96)), (85, 40))
    return [small, small.rotate(35), two, Image.new("RGB", (160, 160), "grey"), small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def test_the_face_and_its_eyes(find, astronaut):
    ((one,),) = find([astronaut])
    assert one.box == pytest.approx((181, 63, 269, 175), abs=6) and one.score > 0.99
    # Read off the photograph.
    assert one.eyes[0] == pytest.approx((204, 102), abs=4) and one.eyes[1] == pytest.approx((247, 104), abs=4)


@pytest.mark.parametrize("angle", [-25, -10, 0, 15, 30])
def test_it_agrees_with_the_published_implementation(find, astronaut, angle):
    """On the same weights, another pyramid and other windows: the same faces a few pixels apart."""
    from facenet_pytorch import MTCNN

    picture = astronaut.rotate(angle, center=(222, 115)).resize((288, 288), Image.Resampling.BILINEAR)
    boxes, _, points = MTCNN(keep_all=True, min_face_size=29, thresholds=[0.6, 0.7, 0.6]).detect(picture, landmarks=True)
    ((one,),) = find([picture])
    assert len(boxes) == 1 and overlap(one.box, tuple(boxes[0])) > 0.75
    np.testing.assert_allclose(one.eyes, sorted(points[0][:2].tolist()), atol=4)


def test_the_line_of_the_eyes_turns_with_the_picture(find, astronaut):
    for angle in (-40, -15, 30):
        ((one,),) = find([astronaut.rotate(angle, center=(222, 115))])
        (ax, ay), (bx, by) = one.eyes
        # The picture turns against the clock; the astronaut's own eyes fall by 2 degrees.
        assert np.degrees(np.arctan2(by - ay, bx - ax)) == pytest.approx(2 - angle, abs=6)


def test_pictures_without_a_face(find, wall):
    assert find([wall, Image.effect_noise((200, 150), 60).convert("RGB")]) == [[], []]
    assert find([]) == []


@pytest.mark.parametrize("size", [(1, 1), (11, 200), (12, 12), (16, 16), (3, 900)])
def test_pictures_smaller_than_a_window(find, astronaut, size):
    assert find([astronaut.resize(size)]) == [[]]


def test_a_picture_alone_and_among_others(find, pictures, astronaut):
    """The same to the last bit, also among pictures of other sizes."""
    alone = [find([picture])[0] for picture in pictures]
    assert [len(found) for found in alone] == [1, 1, 2, 0, 1]
    assert find(pictures) == alone
    large = astronaut.crop((0, 0, 400, 300))
    assert find([pictures[2], large, *pictures]) == [alone[2], find([large])[0], *alone]


def test_batches_of_one_length(pictures):
    """As on a GPU, where several pictures go together and a batch is filled up with black."""
    find = Mtcnn(FILES, Faces(), together=(4, 32))
    together = find(pictures)
    assert together == [find([picture])[0] for picture in pictures]
    for ours, theirs in zip(together, Mtcnn(FILES, Faces())(pictures), strict=True):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            # A last bit may fall on another step of the grid.
            np.testing.assert_allclose(np.ravel([*a.box, *np.ravel(a.eyes)]), [*b.box, *np.ravel(b.eyes)], atol=1 / 8)


def test_the_number_of_threads_changes_nothing(find, pictures):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = find(pictures)
        torch.set_num_threads(3)
        assert find(pictures) == one
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_side_is_what_a_picture_is_searched_at(astronaut):
    """Its face is 33 pixels wide, then 16, then 8: found on less and less, and less exactly."""
    for side, within in ((192, 6), (96, 16), (48, 20)):
        ((one,),) = Mtcnn(FILES, Faces(side=side))([astronaut])
        assert one.box == pytest.approx((181, 63, 269, 175), abs=within)


def test_a_face_smaller_than_asked_is_left_out(astronaut):
    assert Mtcnn(FILES, Faces(min_size=0.25))([astronaut]) == [[]]


def test_a_higher_score_lets_less_through(astronaut):
    (found,) = Mtcnn(FILES, Faces(min_score=0.5))([astronaut.rotate(75, center=(222, 115))])
    assert all(one.score >= 0.5 for one in found)
    assert Mtcnn(FILES, Faces(min_score=1.0))([astronaut.rotate(-60, center=(222, 115))]) == [[]]


def test_weights_of_another_network(tmp_path):
    with pytest.raises(WeightsError, match="rnet.pt covers"):
        Mtcnn([FILES[1], *FILES[1:]], Faces())
    (tmp_path / "pnet.pt").write_bytes(FILES[0].read_bytes()[:9000])
    with pytest.raises(WeightsError, match="pnet.pt is half a download, or damaged"):
        Mtcnn([tmp_path / "pnet.pt", *FILES[1:]], Faces())
