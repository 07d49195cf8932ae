from trainables.measures import ACCURACY, MEASURES, SHARPNESS_GAP, VALIDATION_MEASURES


def test_every_measure_has_one_name_under_one_of_four_headings():
    assert len(set(MEASURES)) == len(MEASURES)
    assert {name.split("/")[0] for name in MEASURES} == {"val", "train", "cost", "test"}
    assert {ACCURACY, SHARPNESS_GAP} <= set(VALIDATION_MEASURES)
