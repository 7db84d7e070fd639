"""Tables: aligned whatever the words, and with nothing in them that a terminal or Markdown would act on."""

from cifar_mlflow.tables import markdown, table


def test_numbers_stand_to_the_right_and_text_to_the_left():
    text = table([("cat", "7.5%", "10"), ("airplane", "100.0%", "9")], "lrr", ("class", "recall", "images"))
    assert text.split("\n") == [
        "class     recall  images",
        "cat         7.5%      10",
        "airplane  100.0%       9",
    ]  # fmt: skip


def test_headings_are_broken_above_a_rule_and_stand_on_it():
    text = table([("relu", "1", "")], "lrl", ("val_loss", "95% of it", "verdict"), rule=True)
    assert text.split("\n") == [
        "      95%",
        "val_   of",
        "loss   it  verdict",
        "----  ---  -------",
        "relu    1",
    ]


def test_wide_characters_take_two_columns():
    assert table([("猫", "x"), ("cat", "y")], "ll").split("\n") == ["猫   x", "cat  y"]


def test_control_characters_become_blanks():
    text = table([("a\x1b[31m\nb", "\x01")], "ll", ("head\x1bing", "\r"), rule=True)
    assert text.isprintable() is False  # it has line breaks,
    assert text.replace("\n", "").isprintable()  # and nothing else that is not printable
    assert text.split("\n")[-1] == "a [31m b"


def test_the_last_column_is_wrapped_between_words():
    command = "cifar-mlflow-x" * 4
    lines = table([("ok", "one two three four"), ("no", f"do {command} now")], "ll", wrap=12).split("\n")
    assert lines == ["ok  one two", "    three four", "no  do", f"    {command}", "    now"]


def test_a_text_that_looks_like_a_number_stays_as_it_is():
    assert table([("76.40", "1e5", "007")], "rrr") == "76.40  1e5  007"


def test_no_cell_breaks_a_markdown_table():
    text = markdown(("a_b", "n"), [("x|y\n<b>", "1"), ("[a](b) `c` *d*", "\\")], "lr")
    assert text.split("\n") == [
        r"| a\_b | n |",
        "| --- | ---: |",
        r"| x\|y \<b\> | 1 |",
        r"| \[a\](b) \`c\` \*d\* | \\ |",
    ]
