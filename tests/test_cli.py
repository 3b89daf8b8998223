"""The command line: help is quick to read, mistakes are one line with an exit code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ParamsError

ROOT = Path(__file__).resolve().parents[1]


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )


def test_help_names_every_stage_of_the_dag():
    from ruamel.yaml import YAML

    shown = run("--help").stdout
    for name, stage in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].items():
        commands = (stage.get("do") or stage)["cmd"]
        for command in [commands] if isinstance(commands, str) else commands:
            assert command.split()[3] in shown, name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("extract", "smell"), "Unknown stream 'smell'"),
        (("inspect", "none.h5"), "none.h5 is not there"),
        (("study", "none"), "Unknown study 'none'"),
        (("predict", "none.mp4"), "models/runs holds no trained model"),
        (("index", "--params", "none.yaml"), "none.yaml is not there"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path):
    # In a folder of its own: the checkout may hold trained models.
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1


def test_startup_imports_no_framework():
    heavy = ("torch", "transformers", "av", "numpy", "polars", "h5py", "lmdb", "hydra")
    code = f"import sys, pipeline.cli; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


MISTAKEN = """
import contextlib, io, json, sys
from pathlib import Path
from ruamel.yaml import YAML
from pipeline.cli import main
yaml = YAML(typ="safe", pure=True)
said = []
for place, value in json.loads(sys.argv[1]):
    values = yaml.load(Path("params.yaml").read_text())
    *groups, last = place.split(".")
    group = values
    for name in groups:
        group = group.setdefault(name, {})
    group[last] = value
    with open("mistaken.yaml", "w") as file:
        yaml.dump(values, file)
    for stage in ("train", "evaluate", "report"):
        sys.argv = ["pipeline", stage, "--params", "mistaken.yaml"]
        with contextlib.redirect_stderr(io.StringIO()) as heard:
            try:
                main()
            except SystemExit as end:
                said.append([end.code, heard.getvalue()])
print(json.dumps([said, [name for name in ("torch", "scipy", "numpy", "polars", "transformers") if name in sys.modules]]))
"""


def test_a_mistake_in_the_parameters_is_told_before_a_library_is_imported(tmp_path):
    cases = [
        ("fusion.name", "gatd", "Unknown fusion 'gatd'. Did you mean 'gated'?"),
        ("temporal.kind", "lstm", "Unknown temporal.kind 'lstm'."),
        ("heads", {"emotion": {"name": "emotoin"}}, "Unknown head 'emotoin'. Did you mean 'emotion'?"),
        ("loss.emotion.name", "cross_entropi", "Unknown loss 'cross_entropi'. Did you mean 'cross_entropy'?"),
        ("training.sampler", {"name": "cats"}, "Unknown sampler 'cats'."),
        ("training.curriculum", {"name": "cats"}, "Unknown curriculum 'cats'."),
        ("training.seed", 3, "unknown parameter training.seed"),
        ("training.seeds", "many", "training.seeds"),
    ]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MISTAKEN, json.dumps([one[:2] for one in cases])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "400"},
    )
    assert done.returncode == 0, done.stderr
    said, imported = json.loads(done.stdout)
    assert imported == []
    for place, (wanted, (code, heard)) in enumerate(zip([one[2] for one in cases for _ in range(3)], said, strict=True)):
        assert code == 2 and wanted in " ".join(heard.split()) and heard.count("error:") == 1, (place, heard)


def test_the_names_that_files_have_are_those_of_the_parts():
    """What is told without an import is what the registries tell."""
    from pipeline.cli.begin import KINDS
    from pipeline.models import registry
    from pipeline.parts import check_name
    from pipeline.training.curricula.base import CURRICULA
    from pipeline.training.samplers.base import SAMPLERS

    known = [*(one for one in vars(registry).values() if isinstance(one, registry.Parts)), CURRICULA, SAMPLERS]
    assert {parts.kind: (parts.package, parts.base.__name__) for parts in known} == KINDS
    for parts in known:
        with pytest.raises(ParamsError) as one:
            check_name(*KINDS[parts.kind], parts.kind, "nothing")
        with pytest.raises(ParamsError) as other:
            parts.find("nothing")
        assert str(one.value) == str(other.value)
        for name in parts:
            check_name(*KINDS[parts.kind], parts.kind, name)


def test_every_group_of_commands_has_help():
    for words, said in (((), "Stages"), (("corpus",), "fetch"), (("cache",), "gc")):
        done = run(*words, "--help")
        assert done.returncode == 0 and said in done.stdout


def test_cache_commands():
    assert run("cache", "verify").stdout.startswith("0 damaged")
    assert "total" in run("cache", "stats").stdout
    assert "nothing to remove" in run("cache", "gc").stdout


def test_params_prints_a_composition():
    assert "name: adaptive" in run("params", "fusion=adaptive").stdout
    assert "fusion" in run("params", "fusion=magic").stderr


@pytest.fixture
def project(tmp_path):
    """A folder with parameters and their groups, and no corpus."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_check_says_all_that_is_missing_at_once(project):
    words = ("recipe=generic", "corpus.root=nowhere", "bundle=tiny", "run.device=cuda:9", "asr.weights=local:none/whisper")
    others = ("streams.video.weights=local:none/clip", "-S", "streams.audio.weights=package:no_such_wheel/x")
    done = run("check", *words, *others, cwd=project)
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for subject in ("device", "corpus generic", "stream video", "stream audio", "asr"):
        assert sum(line.startswith(f"WRONG {subject}: ") for line in wrong) == 1, done.stdout
    assert len(wrong) == 5 and "ok    stream text: text, random:0" in done.stdout
    assert run("check", cwd=project).returncode == 0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fusion.name=concat", "Unknown parameter of fusion.options 'per_dimension'"),
        ("fusion.name=gatd", "Unknown fusion 'gatd'. Did you mean 'gated'"),
        ("temporal.kind=lstm", "Unknown temporal.kind 'lstm'"),
        ("training.curriculum={name: dificulty, options: {}}", "Unknown curriculum 'dificulty'. Did you mean 'difficulty'"),
        ("loss.emotion.options.gama=2", "Unknown parameter of loss.emotion.options 'gama'"),
    ],
)
def test_check_reads_the_parts_that_are_chosen_by_name(project, word, said):
    done = run("check", f"++{word}", cwd=project)
    assert done.returncode == 2 and f"WRONG network: {said}" in done.stdout, done.stdout


def test_check_refuses_to_rotate_a_validation_part_of_the_corpus_own(project):
    rows = [f"c{i},Well {i} then.,{('joy', 'anger')[i % 2]},s{i},{('train', 'train', 'val', 'test')[i % 4]}" for i in range(40)]
    (project / "own").mkdir()
    (project / "own/clips.csv").write_text("\n".join(["id,text,emotion,speaker,split", *rows]) + "\n")
    words = ("recipe=generic", "corpus.root=own", "corpus.options.table=clips.csv", "protocol=official", "bundle=tiny")
    line = "protocol official: training.rotate: fold 0 has no validation parts to take in turn"
    assert line in run("check", *words, "training.rotate=true", cwd=project).stdout
    assert "ok    protocol official: " in run("check", *words, cwd=project).stdout


def test_weights_are_missed_before_anything_is_decoded(project):
    run(
        "use",
        "recipe=generic",
        "corpus.root=.",
        "bundle=tiny",
        "streams.video.weights=local:a",
        "streams.text.weights=local:b",
        cwd=project,
    )
    for words in (("corpus", "prepare"), ("manifest",), ("extract", "video")):
        done = run(*words, cwd=project)
        assert done.returncode == 2 and done.stderr.count("error:") == 1
        if words[0] != "extract":  # which asks for its manifest first, where there is none
            assert "stream video: local:a" in done.stderr and "stream text: local:b" in done.stderr
        assert "recipe generic: corpus generic in ." in done.stderr.splitlines()[0]
    assert not (project / "data" / "manifest.parquet").exists()


@pytest.mark.parametrize(
    "overrides", [("fusion=magic",), ("training.epoch=3",), ("fusion=late,gated",), ("~training.epochs",), ("corpus.root=[",)]
)
def test_use_writes_nothing_when_it_cannot_be_used(project, overrides):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    done = run("use", *overrides, cwd=project)
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_use_composes_to_what_the_same_overrides_give(project):
    """In one go or one after the other; a recipe forgets what was chosen for another."""
    from pipeline.compose import compose

    choice = [
        "recipe=ravdess",
        "corpus.root=/my films/x",
        "fusion=late",
        "temporal=base",
        "protocol=loso",
        "~stream@streams.video",
    ]
    choice += ["+stream@streams.face=videomae_tiny", "stream@streams.audio=wavlm", "training.lr=0.01", "asr.weights=null"]
    expected = compose(choice, ROOT / "conf")
    run("use", "recipe=meld", "fusion=concat", "training.epochs=3", "corpus.options.media=none", cwd=project)
    for words in (choice[:3], choice[3:6], ["+stream@streams.face=face_mae_tiny"], choice[6:]):
        assert run("use", *words, cwd=project).returncode == 0
    assert compose((), project / "conf") == expected
    assert run("params", "--check", cwd=project).returncode == 0
    # And back: the file is as it came.
    run("use", "recipe=demo", cwd=project)
    assert (project / "conf" / "config.yaml").read_text() == (ROOT / "conf" / "config.yaml").read_text()
    assert (project / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize(
    "words",
    [("check",), ("use", "fusion=late"), ("params",), ("params", "--write"), ("corpus", "check", "ravdess"), ("train",)],
    ids=" ".join,
)
def test_another_folder_is_a_line(tmp_path, words):
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and "Run this from the folder that holds" in done.stderr
    assert not list(tmp_path.iterdir())


def test_corpus_check_takes_the_options_of_a_recipe(project):
    (project / "tree" / "calm").mkdir(parents=True)
    shutil.copy(ROOT / "README.md", project / "tree" / "calm" / "a.wav")
    words = ("corpus.options.table=null", "-S", "corpus.options.levels=[emotion]", "--root", "tree")
    done = run("corpus", "check", "generic", *words, cwd=project)
    assert "will not train: " in done.stdout and "unreadable" in done.stdout and done.returncode == 3
    done = run("corpus", "check", "generic", *words, "--json", cwd=project)
    assert '"clips": 0' in done.stdout and '"failed": 1' in done.stdout and done.returncode == 3, done.stderr
    assert "Could not override" in run("corpus", "check", "generic", "corpus.options.tabel=x", cwd=project).stderr
