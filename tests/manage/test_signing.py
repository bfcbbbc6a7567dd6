"""Signatures: a rule is what was signed, by whom the configuration says, or it is refused."""

import base64
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from module_maker import rule

from edge.errors import ConfigError, RuleError
from edge.host import signature
from edge.host.module import SIGNATURE_SECTION, Module, with_section
from gateway import cli
from gateway.config import reader as config, spec
from gateway.deploy import signing
from rulec import keys

WASM = rule("hot")


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """(private key, {"plant": public key})."""
    path = tmp_path_factory.mktemp("keys") / "plant.key"
    public = keys.generate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    return keys.load(path), {"plant": public}


def test_a_signed_module_is_the_same_rule_and_names_its_key(plant):
    private, known = plant
    signed = Module(keys.sign(WASM, private))
    assert signed.digest == Module(WASM).digest and signed.content == WASM
    assert signing.verify(signed, known) == "plant"
    assert keys.sign(keys.sign(WASM, private), private) == keys.sign(WASM, private), "a signature is replaced, not added"


def test_what_is_not_signed_or_by_a_stranger_is_refused(plant, tmp_path):
    private, known = plant
    with pytest.raises(RuleError, match="not signed.*tidegate rule sign"):
        signing.verify(Module(WASM), known)
    keys.generate(tmp_path / "stranger.key")
    signed = Module(keys.sign(WASM, keys.load(tmp_path / "stranger.key")))
    with pytest.raises(RuleError, match="key that this gateway does not know.*known are plant"):
        signing.verify(signed, known)
    pretends = Module(signature.signed(Module(WASM), known["plant"], signature.parts(signed)[1]))
    with pytest.raises(RuleError, match="signature by plant is wrong"):
        signing.verify(pretends, known)


def test_a_signature_is_of_one_module_only(plant):
    private, known = plant
    other = Module(signature.signed(Module(rule("hot", 2)), known["plant"], signature.parts(Module(keys.sign(WASM, private)))[1]))
    with pytest.raises(RuleError, match="was changed after it was signed"):
        signing.verify(other, known)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_changed_byte_passes(plant, data):
    private, known = plant
    wasm = bytearray(keys.sign(WASM, private))
    wasm[data.draw(st.integers(0, len(wasm) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((RuleError, ConfigError)):
        signing.verify(Module(bytes(wasm)), known)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=120))
def test_any_section_is_refused_in_one_line(plant, content):
    try:
        signing.verify(Module(with_section(WASM, SIGNATURE_SECTION, content)), plant[1])
        raise AssertionError("passed")
    except RuleError as error:
        assert "\n" not in str(error)


def test_keys_stand_in_the_configuration_as_text_or_as_files(tmp_path, plant):
    public = base64.b64encode(plant[1]["plant"]).decode()
    (tmp_path / "b.pub").write_text(public + "\n")
    text = f"""
[listener]
[streams.s]
topics = ["s"]
fields = {{ t = "f64" }}
[signing]
policy = "required"
keys = {{ a = "{public}", b = "b.pub" }}
"""
    loaded = config.parse(text, tmp_path / "tidegate.toml")
    assert signing.public_keys(loaded.signing) == {"a": plant[1]["plant"], "b": plant[1]["plant"]}
    assert signing.problems(loaded) == []
    (tmp_path / "b.pub").write_text("AAAA")
    assert "signing.keys.b: 'AAAA' is no public key" in signing.problems(loaded)[0][1]
    (tmp_path / "b.pub").unlink()
    assert "b.pub: No such file" in signing.problems(loaded)[0][1]
    with pytest.raises(config.Problems, match="signing.keys: is missing"):
        config.parse(text.replace("keys =", "# keys ="))
    assert signing.public_keys(spec.Signing()) == {}


def test_the_commands_make_a_key_and_sign_with_it(tmp_path, capsys):
    key, file = tmp_path / "k", tmp_path / "hot.wasm"
    file.write_bytes(WASM)
    assert cli.main(["rule", "keygen", str(key)]) == 0
    public = (tmp_path / "k.pub").read_text().strip()
    assert public in capsys.readouterr().out
    assert cli.main(["rule", "keygen", str(key)]) == 2 and "File exists" in capsys.readouterr().err
    assert cli.main(["rule", "sign", str(file), "--key", str(key)]) == 0
    assert signing.verify(Module(file.read_bytes()), {"k": base64.b64decode(public)}) == "k"
    (tmp_path / "junk").write_text("junk")
    for wrong, says in ((tmp_path / "junk", "no private key"), (tmp_path / "none", "keygen")):
        assert cli.main(["rule", "sign", str(file), "--key", str(wrong)]) == 2
        assert says in capsys.readouterr().err


def test_reading_a_configuration_loads_no_cryptography():
    """gateway.lean comes after it, and leaves OpenSSL out where nothing needs it."""
    code = "import sys, gateway.config.reader; print([name for name in ('_hashlib', '_ssl', 'cryptography') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
