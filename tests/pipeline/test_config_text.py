"""Values of files and of --set are what was written, or refused with the line; nothing is read as something else."""

import datetime

import pytest
import yaml

from components.errors import ConfigError
from pipeline.config import PipelineConfig
from pipeline.config_files import PRESETS, FileSettings, load_config
from pipeline.config_text import MAX_VALUES, TextError, read_document, read_override

TEXTS = ["a #2", "a: b", "*x", "&x", "!x", "[", "{", "007", "no", "on", "1e3", "0x10", "2024-01-01", "'q'", " b ", "~"]
TEXTS += ["1.10", "12:30", "true", ".inf", "-", "?", "%a", "@b", "`c", "a\tb", "NULL"]


@pytest.mark.parametrize("text", TEXTS)
def test_an_override_of_a_text_keeps_every_character(text):
    assert read_override(text, PipelineConfig, ("images", "uri")) == text
    assert load_config("folder", [f"images.uri={text}"]).images.uri == text


@pytest.mark.parametrize("text", ["", " ", "\t"])
@pytest.mark.parametrize("setting", ["images.uri", "seed", "images.labels"])
def test_an_override_without_a_value_is_refused(setting, text):
    with pytest.raises(ConfigError, match=f"{setting}: must have a value after '=', got nothing: write null for none"):
        load_config("folder", ["images.uri=a", f"{setting}={text}"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("null", None),
            ("true", True),
            ("7", 7),
            ("-1", -1),
            (" 3 ", 3),
            ("0x10", 16),
            ("1e3", 1000.0),
            ("1.10", 1.1),
        ),
        *(("[1, 0.1]", [1, 0.1]), ("{}", {}), ('"7"', "7"), ("yes", "yes"), ("*x", "*x"), ("&a 3", "&a 3")),
        ("12:30", "12:30"),
    ],
)
def test_an_override_of_another_setting_is_a_value_of_yaml_1_2(text, value):
    read = read_override(text, PipelineConfig, ("seed",))
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("007", "must not begin with 0, which some read as octal, got 007: write 7"),
        (".nan", "must be finite"),
        ("[1, 2] # both", "must be one value, got more after it"),
        ("[1, 2", "must be YAML"),
        ("[010]", "write 10"),
        ("{a: 1, a: 2}", "seed.a must be given once"),
        ("[!!python/name:os.system x]", "tags such as tag:yaml.org,2002:python/name:os.system must not be used"),
    ],
)
def test_a_twisted_override_is_refused(text, message):
    with pytest.raises(TextError, match=message):
        read_override(text, PipelineConfig, ("seed",))


@pytest.mark.parametrize(
    "text", ["1.10", "no", "on", "1", "2024-01-01", "12:30", "010", "0x10", "1e3", "True", "1_000"]
)
def test_a_text_in_a_file_is_taken_as_it_is_written(text, tmp_path):
    assert yaml.safe_load(f"a: {text}") != {"a": text} or text == "1e3"  # YAML 1.1 reads nearly all as something else
    (tmp_path / "mine.yaml").write_text(f"base: folder\nimages: {{uri: {text}, label_column: {text}}}\n")
    images = load_config(str(tmp_path / "mine.yaml")).images
    assert (images.uri, images.label_column) == (text, text)


def test_names_of_levels_are_text_too(tmp_path):
    levels = "".join(f"    - {{name: {name}, stride: {stride}}}\n" for name, stride in (("1", 8), ("no", 4)))
    prior = "{hidden: 8, residual_hidden: 8, layers: 1, filter_size: 3, training: {updates: 1, batch_size: 1}}"
    text = f"vqvae:\n  levels:\n{levels}priors:\n  1: {prior}\n  no: {prior}\n"
    tree, _ = read_document(text.encode(), FileSettings)
    assert [level["name"] for level in tree["vqvae"]["levels"]] == ["1", "no"] == list(tree["priors"])


def test_an_empty_value_and_a_tilde_are_none_and_quotes_make_text():
    tree, _ = read_document(b"images: {uri: ~, labels: , key_column: 'null', label_column: null}", FileSettings)
    assert tree["images"] == {"uri": None, "labels": None, "key_column": "null", "label_column": None}


WRONG_FILES = [
    (b"a: 1\nb: 2\na: 3\n", "a must be given once, got it in lines 1 and 3"),
    (b"images:\n  augment: {copies: 1, flip: true,\n    copies: 2}\n", "images.augment.copies .* lines 2 and 3"),
    (b'{"seed": 1,\n "seed": 2}', "seed must be given once, got it in lines 1 and 2"),
    (b"seed: 1\nvqvae:\n  beta: 010\n", "line 3: a number must not begin with 0"),
    (b"vqvae: {beta: .nan}", "line 1: a number must be finite, got .nan"),
    (b"vqvae: {beta: -.inf}", "line 1: a number must be finite, got -.inf"),
    (b"vqvae:\n\tbeta: 1\n", "line 2: must be YAML: .*indent by spaces, not by tabs"),
    (b"name: a\nimages: caf\xe9\n", "line 2: must be UTF-8, got byte 0xe9: save it as UTF-8"),
    ("name: a\n".encode("utf-16"), "line 1: must be UTF-8, got byte 0xff"),
    (b"name: a\n\x00\n", "line 2: must be YAML, got the character #x0000"),
    (b"a: &a [*a]\n", "line 1: an alias .* must not stand inside what it names"),
    (b"a: *b\n", "line 1: must be YAML: found undefined alias"),
    (b"seed: !!python/object/apply:os.system [ls]\n", "line 1: tags such as .* must not be used"),
    (b"seed: !!int 3\nstate: !secret x\n", "line 2: tags such as !secret"),
    (b"[a, b]: 1\n", "line 1: a name must be text, got a list or a mapping"),
    (b"a: 1\n---\nb: 1\n", "line 2: must be YAML"),
    (b"[" * 5000, "must not be nested that deeply"),
    (b"a: &a {b: 1}\nc:\n  <<: 3\n", "line 3: << must take over a mapping"),
]


@pytest.mark.parametrize(("data", "message"), WRONG_FILES)
def test_a_wrong_file_is_refused_with_the_line(data, message):
    with pytest.raises(TextError, match=message):
        read_document(data, FileSettings)


def test_an_alias_bomb_is_refused_before_it_fills_memory():
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]" for n in range(40)]  # 9^39 values
    with pytest.raises(TextError, match=f"must not make more than {MAX_VALUES:,} values"):
        read_document("\n".join(lines).encode(), FileSettings)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfseed: 1\r\nname: a\r\n", b'\xef\xbb\xbf{"seed": 1, "name": "a"}'])
def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_fault(data):
    assert read_document(data, FileSettings)[0] == {"seed": 1, "name": "a"}


def test_merged_mappings_read_as_in_yaml_1_1():
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 9}\nd: {<<: *b}\n"
    assert read_document(text.encode(), FileSettings)[0] == yaml.safe_load(text)


def test_every_preset_reads_as_yaml_1_1_reads_it():
    for path in PRESETS.glob("*.yaml"):
        tree, _ = read_document(path.read_bytes(), FileSettings)
        expected = yaml.safe_load(path.read_text())
        by_size = expected.pop("by_image_size", {})
        assert tree.pop("by_image_size", {}) == {str(size): settings for size, settings in by_size.items()}
        assert tree == expected


def test_faults_of_settings_name_the_line_of_the_file(tmp_path):
    (tmp_path / "base.yaml").write_text("base: folder\nimages: {uri: /data}\nvqvae:\n  decay: 3\n")
    path = tmp_path / "mine.yaml"
    path.write_text("base: base.yaml\n\nseed: many\nvqvae: {betta: 1}\nimages: {held_out: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    lines = {fault.split(":")[0]: fault for fault in caught.value.faults}
    assert lines["seed"].endswith(f"got 'many' (line 3 of {path})")
    assert lines["vqvae.betta"] == f"vqvae.betta: no such setting (got 1): did you mean beta? (line 4 of {path})"
    assert lines["images"].endswith(f"(line 5 of {path})")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), ["seed=x", "vqvae.betta=1", "images.held_out=3"])
    assert all("(line " not in fault for fault in caught.value.faults)


def test_values_that_are_no_text_stay_no_text():
    assert isinstance(yaml.safe_load("2024-01-01"), datetime.date)
    with pytest.raises(ConfigError, match="seed: input should be a valid integer"):
        load_config("digits", ["seed=2024-01-01"])
