"""`tidegate check`: all that is wrong, in one go."""

from gateway import cli

BAD = """
[listener]
prot = 1
tls = { cert = "none.pem", key = "none.key" }
[streams.env]
topics = ["a/#/b", "b/+c"]
key = "dev"
[streams.env.fields]
device = "str"
ts = "time"
[streams.good]
topics = ["good"]
[streams.good.fields]
temp = "f64"
[rules.hot]
input = "good"
module = "treshold"
[rules.cold]
input = "good"
module = "threshold"
params = { field = "tmp", value = 3 }
[rules.odd]
input = "goood"
module = "threshold"
"""


def check(tmp_path, capsys, text):
    (tmp_path / "t.toml").write_text(text)
    status = cli.main(["check", "-c", str(tmp_path / "t.toml")])
    return status, capsys.readouterr()


def test_mistakes_of_form_topics_fields_modules_and_parameters_are_told_together(tmp_path, capsys):
    status, said = check(tmp_path, capsys, BAD)
    assert status == 1
    for part in ("listener.prot: unknown key", "streams.env.topics[0]", "streams.env.topics[1]", "streams.env.fields.ts", "rules.odd.input",
                 "rules.hot: ", "did you mean" , "rules.cold: ", "'tmp'"):
        assert part in said.err, (part, said.err)
    assert "Traceback" not in said.err


def test_files_that_are_not_there_are_told(tmp_path, capsys):
    good = BAD.replace("prot = 1\n", "port = 0\n").replace('"a/#/b", "b/+c"', '"a/#"').replace('key = "dev"\n', "").replace('ts = "time"\n', "")
    good = good[:good.index("[rules.hot]")]
    status, said = check(tmp_path, capsys, good)
    assert status == 1 and "listener.tls" in said.err and "none.pem" in said.err


def test_what_is_right_is_ok(tmp_path, capsys):
    text = BAD[BAD.index("[streams.good]"):BAD.index("[rules.hot]")]
    status, said = check(tmp_path, capsys, "[listener]\nport = 0\n" + text)
    assert (status, said.err) == (0, "") and said.out.endswith("ok\n")
