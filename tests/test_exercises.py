"""The programming exercises: stubs fail, solutions pass, mistakes are seen, grades are right."""

import csv
import subprocess
import sys
from pathlib import Path

import check
import exercise_table
import grade
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "exercises"

# A solution, what a student might write instead, and what the check says about it.
MISTAKES = {
    "ex02_top_k": ("scores[seen] = -np.inf", "pass", "trial 1"),
    "ex04_ndcg": (">=", ">", "a model that says the same of everything"),
    "ex08_int8_product": (
        "codes_x.astype(np.int32) @ codes_w.astype(np.int32)",
        "(codes_x @ codes_w).astype(np.int32)",
        "trial 1",
    ),
    "ex09_straight_through": ("gradient * inside", "gradient", "trial 1: part 1"),
    "ex12_soft_labels": (" - scores.max(axis=1, keepdims=True)", "", "scores of 1000"),
    "ex15_adagrad": ("np.add.at(total, ids, gradients)", "total[ids] += gradients", "trial 1"),
    "ex17_map_of_texts": ("vectors[seen]", "vectors[~seen][: seen.sum()]", "trial 1"),
    "ex23_list_softmax": ("scores - scores.max(axis=1, keepdims=True)", "scores", "scores of 1000"),
    "ex25_paired_change": ("ddof=1", "ddof=0", "trial 1: part 2"),
    "ex18_batch_gradient": ("counts > 0", "counts >= 0", "a worker without rows"),
}


def test_each_check_has_its_files():
    for folder in (FOLDER, FOLDER / "solutions"):
        assert sorted(check.CHECKS) == sorted(path.stem for path in folder.glob("ex*.py"))
    assert len({name[:4] for name in check.CHECKS}) >= 24, "chapters with an exercise"


@pytest.mark.parametrize("name", check.CHECKS)
def test_a_stub_fails_and_its_solution_passes(name):
    header = exercise_table.read_header(FOLDER / f"{name}.py")
    assert set(header) == {"Title", "Chapter", "Level", "Learn", "Source"}
    assert header["Chapter"] == str(int(name[2:4])) and header["Level"] in exercise_table.LEVELS
    assert check.check(FOLDER / f"{name}.py") == (0.0, check.UNWRITTEN)
    for seed in (0, 1):
        assert check.check(FOLDER / "solutions" / f"{name}.py", seed) == (1.0, "")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", MISTAKES)
def test_the_check_says_what_is_wrong(name, tmp_path):
    right, wrong, said = MISTAKES[name]
    solution = (FOLDER / "solutions" / f"{name}.py").read_text(encoding="utf-8")
    assert right in solution
    path = tmp_path / f"{name}.py"
    path.write_text(solution.replace(right, wrong, 1), encoding="utf-8")
    score, fault = check.check(path)
    assert score < 1 and said in fault
    path.write_text("from recsys_lib import models\n", encoding="utf-8")
    assert "imports recsys_lib" in check.check(path)[1]


def test_the_hand_out_holds_no_solution(tmp_path):
    grade.hand_out(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"README.md", "check.py", "reference.py", *(f"{n}.py" for n in check.CHECKS)}
    for name in check.CHECKS:
        stubs = [(folder / f"{name}.py").read_bytes() for folder in (FOLDER, tmp_path)]
        assert stubs[0] == stubs[1]
    command = [sys.executable, str(tmp_path / "check.py"), "24"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, f"ex24_gini: {check.UNWRITTEN}\n")


def test_grades_of_files_and_of_numbers(tmp_path):
    names = ("ex14_front", "ex22_popular_lately", "ex24_gini")
    files = {name: tmp_path / "anna" / f"{name}.py" for name in (*names, "ex19_merge")}
    files["ex14_front"].parent.mkdir()
    files["ex14_front"].write_text("raise SystemExit\n", encoding="utf-8")  # ends the process
    for name in names[1:]:
        files[name].write_bytes((FOLDER / "solutions" / f"{name}.py").read_bytes())
    got = grade.scores(files, "anna", "secret")
    assert [share for share, _ in got.values()] == [0, 1, 1, 0]
    assert got["ex14_front"][1] == "ended the program" and got["ex19_merge"][1] == "no file"

    path = tmp_path / "numbers.csv"
    mine = check.number(files["ex24_gini"], check.seed_of("anna", "ex24_gini"))
    rows = [("anna", mine), ("bo", mine), ("cem", "none")]
    lines = "".join(f"{student},ex24_gini,{number}\n" for student, number in rows)
    path.write_text(f"student,exercise,number\n{lines}", encoding="utf-8")
    assert [row["score"] for row in grade.compare_numbers(path)] == [1, 0, 0]
    assert list(csv.DictReader(path.open()))[1]["number"] == mine
    seeds = {check.seed_of("anna", "ex24_gini", key) for key in ("", "secret", "other")}
    assert len(seeds) == 3
