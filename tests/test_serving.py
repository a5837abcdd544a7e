"""What both served models share: images as text, parameters, requirements."""

import base64

import numpy as np
import pytest

from components import serving


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@@", "base64 of a PNG or JPEG"),
        (base64.b64encode(b"GIF89a").decode(), "PNG or JPEG file, got 6 bytes"),
        (serving.image_to_base64(np.zeros((8, 16, 1), np.uint8)), "16x16 pixels, got 16x8: resize"),
    ],
)
def test_images_of_a_wrong_format_or_size_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        serving.image_from_base64(text, size=16, channels=1)


def test_parameters_override_defaults_and_keep_their_types():
    assert serving.with_defaults({"keep": 1}, {"keep": 0.5, "count": 2}) == {"keep": 1.0, "count": 2}
    assert serving.with_defaults(None, {"on": True}) == {"on": True}


def test_requirements_contain_no_local_builds():
    assert all("+" not in line and "==" in line for line in serving.served_requirements())
