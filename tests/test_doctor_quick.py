"""What numbers alone tell of a data set: each finding where it is due, and only there."""

import pytest

from regnet.doctor.findings import Finding, errors_of, quoted, share_of, worst_first
from regnet.doctor.quick import quick_findings
from regnet.system.text import counted


def codes(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings}


def test_nothing_is_wrong_with_a_good_data_set() -> None:
    assert quick_findings(["cat", "dog"], [100, 90], [10, 10]) == ()
    assert quick_findings(["cat", "dog"], [100, 90]) == ()


def test_no_photos_and_a_single_class_waste_a_training() -> None:
    assert codes(quick_findings(["cat", "dog"], [0, 0], [5, 5])) == {"no-images": "error"}
    assert codes(quick_findings([], [])) == {"no-images": "error"}
    found = quick_findings(["cat"], [50])
    assert codes(found) == {"one-class": "error"}
    assert "cat" in found[0].text


@pytest.mark.parametrize(
    ("classes", "severity"),
    [
        (["train", "val"], "error"),
        (["Training", "Validation", "test"], "error"),
        (["cat", "dog", "train", "val"], "error"),
        (["cat", "test"], "error"),
        (["bus", "plane", "train"], "warning"),
        (["training shoe", "valley"], None),
    ],
)
def test_splits_are_no_classes_but_a_lone_train_may_be_the_vehicle(classes, severity) -> None:
    found = codes(quick_findings(classes, [50] * len(classes)))
    assert found == ({} if severity is None else {"splits-as-classes": severity})


def test_classes_of_one_split_only() -> None:
    names = ["a", "b", "c", "d"]
    assert codes(quick_findings(names, [20, 20, 20, 0], [5, 5, 5, 5])) == {
        "classes-not-in-training": "error"
    }
    found = quick_findings(names, [20, 20, 20, 20], [5, 5, 0, 0])
    assert codes(found) == {"classes-not-in-split": "warning"}
    assert found[0].count == 2
    assert found[0].text == "2 classes have no photos in the validation split: c, d."
    assert codes(quick_findings(names, [20] * 4, [5, 0, 0, 0])) == {"classes-not-in-split": "error"}
    assert codes(quick_findings(names, [20] * 4, [0, 0, 0, 0])) == {"empty-split": "error"}


def test_empty_classes() -> None:
    found = quick_findings(["a", "b", "c"], [20, 20, 0], [5, 5, 0])
    assert codes(found) == {"empty-classes": "error"}
    assert found[0].text == "1 class has no photos: c."
    assert codes(quick_findings(["a", "b", "c"], [20, 20, 0])) == {"empty-classes": "error"}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([999, 100], {}),
        ([1000, 100], {"imbalance": "warning"}),
        ([90, 10], {}),
        ([20, 9], {"few-photos": "warning"}),
        ([90, 9], {"imbalance": "warning", "few-photos": "warning"}),
    ],
)
def test_imbalance_and_few_photos(sizes: list[int], expected: dict[str, str]) -> None:
    assert codes(quick_findings(["big", "small"], sizes)) == expected


def test_imbalance_says_by_how_much() -> None:
    (found,) = quick_findings(["small", "big", "more"], [10, 400, 41])
    assert found.text == "big has 400 training photos, small only 10: 40 times as many."
    assert found.count == 1


def test_names_that_differ_in_case_only() -> None:
    found = quick_findings(["Great_Dane", "cat", "great dane"], [20, 20, 0], [0, 5, 5])
    assert codes(found) == {
        "classes-not-in-training": "error",
        "similar-names": "warning",
        "classes-not-in-split": "warning",
    }
    assert found[1].text.endswith("Great_Dane and great dane.")
    assert quick_findings(["crane", "crane"], [20, 20]) == ()


def test_files_that_tell_that_a_split_is_a_copy() -> None:
    train = [(f"train/cat/{i}.jpg", 1000 + i) for i in range(20)]
    copied = [(f"val/cat/{i}.jpg", 1000 + i) for i in range(5)]
    other = [(f"val/cat/{i}.jpg", 2000 + i) for i in range(6)]
    names, counts = ["cat", "dog"], ([20, 20], [5, 5])
    found = quick_findings(names, *counts, train_files=train, val_files=copied)
    assert codes(found) == {"same-files": "error"}
    assert found[0].count == 5
    assert [file.source for file in found[0].files] == [name for name, _ in copied]
    assert quick_findings(names, *counts, train_files=train, val_files=other) == ()
    assert quick_findings(names, *counts, train_files=train, val_files=copied + other) == ()


def test_files_without_a_byte() -> None:
    files = [(f"{i}.jpg", i) for i in range(20)]
    found = quick_findings(["a", "b"], [20, 20], train_files=files)
    assert codes(found) == {"empty-files": "warning"}
    assert found[0].text == "1 file of 20 has no bytes."
    files = [(f"{i}.jpg", 0) for i in range(2)] + files[1:19]
    assert codes(quick_findings(["a", "b"], [20, 20], train_files=files)) == {
        "empty-files": "error"
    }


def test_the_worst_comes_first_and_every_finding_has_a_remedy() -> None:
    found = quick_findings(["a", "b", "val", "B"], [500, 20, 5, 0], [0, 5, 5, 0])
    severities = [finding.severity for finding in found]
    assert severities == sorted(severities)  # error, note, warning: no notes here
    assert len(found) >= 5
    assert errors_of(found) == tuple(f for f in found if f.severity == "error")
    for finding in found:
        assert finding.text.endswith(".")
        assert finding.remedy.endswith(".")
        assert finding.count > 0
    assert worst_first(reversed(found))[0].severity == "error"


def test_sentences() -> None:
    assert (counted(1, "photo"), counted(2000, "photo")) == ("1 photo", "2,000 photos")
    assert counted(2, "class", "classes") == "2 classes"
    texts = [share_of(*parts) for parts in ((0, 9), (1, 3), (1, 30), (1, 5000), (3, 100), (0, 0))]
    assert texts == ["0 %", "33 %", "3.3 %", "under 0.1 %", "3 %", "0 %"]
    assert quoted(list("abc")) == "a, b, c"
    assert quoted(list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"
