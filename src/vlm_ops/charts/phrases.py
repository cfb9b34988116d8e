"""The wordings of the questions, apart from how they are answered.

Every wording of a kind asks for the same thing, so that none gives the answer away. Public,
because the tiny base model must never have seen one of them: a test compares them with the
prompts of its pretraining.
"""

from collections.abc import Mapping
from dataclasses import dataclass

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "type": (
        "Is this a bar chart, a horizontal bar chart, a line chart or a pie chart?",
        "Which type of chart is this: pie chart, line chart, horizontal bar chart or bar chart?",
        "What kind of chart is shown: a line chart, a bar chart, a pie chart or a horizontal bar"
        " chart?",
        "Which one is this: horizontal bar chart, pie chart, bar chart or line chart?",
    ),
    "count": (
        "How many {marks} are there?",
        "How many {marks} does the chart show?",
        "What is the number of {marks} in this chart?",
        "Count the {marks}. How many are there?",
    ),
    "count_points": (
        "How many points are there on {each}?",
        "How many points does the chart show on {each}?",
        "What is the number of points on {each}?",
        "Count the points on {each}. How many are there?",
    ),
    "extreme_color": (
        "What color is the {extreme} {mark}?",
        "What is the color of the {extreme} {mark}?",
        "Which color does the {extreme} {mark} have?",
        "In which color is the {extreme} {mark} drawn?",
    ),
    "extreme_position": (
        "Counting from the {start}, which {mark} is the {extreme}?",
        "Which {mark} is the {extreme}, counting from the {start}?",
        "What is the position of the {extreme} {mark}, counted from the {start}?",
        "Counted from the {start}, what number is the {extreme} {mark}?",
    ),
    "compare_color": (
        "Is the {a} {mark} {larger} than the {b} {mark}?",
        "Is the {a} {mark} {larger} than the {b} one?",
        "Compared with the {b} {mark}, is the {a} {mark} {larger}?",
        "Would you say that the {a} {mark} is {larger} than the {b} {mark}?",
    ),
    "compare_position": (
        "Counting from the {start}, is {mark} {a} {larger} than {mark} {b}?",
        "Is {mark} {a} {larger} than {mark} {b}, counting from the {start}?",
        "Counted from the {start}, is number {a} of the {marks} {larger} than number {b}?",
        "Compared with {mark} {b} from the {start}, is {mark} {a} {larger}?",
    ),
    "compare_line": (
        "Does the {a} line end higher than the {b} line?",
        "At the right end, is the {a} line above the {b} line?",
        "Does the {a} line finish above the {b} one?",
        "Is the last point of the {a} line higher than that of the {b} line?",
    ),
    "twice_color": (
        "Is the {a} {mark} more than twice as {large} as the {b} {mark}?",
        "Is the {a} {mark} more than two times as {large} as the {b} one?",
        "Compared with the {b} {mark}, is the {a} {mark} more than twice as {large}?",
        "Is the {a} {mark} over twice as {large} as the {b} {mark}?",
    ),
    "twice_position": (
        "Counting from the {start}, is {mark} {a} more than twice as {large} as {mark} {b}?",
        "Is {mark} {a} from the {start} more than two times as {large} as {mark} {b}?",
        "Compared with {mark} {b} from the {start}, is {mark} {a} more than twice as {large}?",
        "Counted from the {start}, is {mark} {a} over twice as {large} as {mark} {b}?",
    ),
    "trend": (
        "Does {line} end higher than it starts?",
        "Is {line} higher at its end than at its start?",
        "Does {line} finish above the point where it begins?",
        "Is the last point of {line} above its first point?",
    ),
    "highest_line": (
        "What color is the line that ends highest?",
        "Which color has the line with the highest last point?",
        "At the right end, what is the color of the top line?",
        "What is the color of the line that finishes above all others?",
    ),
    "existence": (
        "Is there {article} {color} {mark}?",
        "Does the chart have {article} {color} {mark}?",
        "Can you see {article} {color} {mark} in the chart?",
        "Is any of the {marks} {color}?",
    ),
    "share_half": (
        "Is the largest slice more than half of the whole?",
        "Does the largest slice take up more than half of the chart?",
        "Is the biggest slice larger than all the others together?",
        "Does one slice cover more than half of the circle?",
    ),
    "share_quarter": (
        "Is the {a} slice more than a quarter of the whole?",
        "Does the {a} slice take up more than a quarter of the chart?",
        "Is more than one quarter of the circle {a}?",
        "Does the {a} slice cover more than 25% of the circle?",
    ),
    "value": (
        "What is the value of {label}?",
        "Which value does {label} have?",
        "What number does the chart show for {label}?",
        "How large is the value at {label}?",
    ),
    "label": (
        "What is the label of the {extreme} {mark}?",
        "Which label belongs to the {extreme} {mark}?",
        "What name stands at the {extreme} {mark}?",
        "How is the {extreme} {mark} labeled?",
    ),
    "is_pie": (
        "Is this a pie chart?",
        "Is the picture a pie chart?",
        "Does the picture show a pie chart?",
        "Would you call this a pie chart?",
    ),
    "several": (
        "Is there more than one line?",
        "Does the chart show more than one line?",
        "Are there several lines in this chart?",
        "Would you say that this chart has two lines or more?",
    ),
    "many": (
        "Are there more than five {marks}?",
        "Does the chart show more than five {marks}?",
        "Does this chart have more than five {marks}?",
        "Is the number of {marks} larger than five?",
    ),
    "caption": (
        "Describe this chart in one sentence.",
        "What does this chart look like? Answer in one sentence.",
        "Write a caption for this chart.",
        "Give a short description of the chart.",
    ),
}
"""All wordings by what they are about; names in braces are filled in."""


@dataclass(frozen=True)
class Words:
    """What the marks of a chart and their sizes are called.

    Attributes:
        mark: One mark.
        marks: Several.
        large: As in "twice as tall as".
        larger: As in "taller than".
        largest: As in "the tallest".
        smallest: As in "the shortest".
        start: Where one begins to count; empty where nothing is counted.
    """

    mark: str
    marks: str
    large: str
    larger: str
    largest: str
    smallest: str
    start: str


WORDS: Mapping[str, Words] = {
    "bar": Words("bar", "bars", "tall", "taller", "tallest", "shortest", "left"),
    "barh": Words("bar", "bars", "long", "longer", "longest", "shortest", "top"),
    "pie": Words("slice", "slices", "large", "larger", "largest", "smallest", ""),
    "line": Words("line", "lines", "", "", "", "", ""),
    "point": Words("point", "points", "high", "higher", "highest", "lowest", "left"),
}
"""Words by kind of chart, and for the points of a single line."""

CHART_NAMES: Mapping[str, str] = {
    "bar": "Bar chart",
    "barh": "Horizontal bar chart",
    "line": "Line chart",
    "pie": "Pie chart",
}
"""The answers to questions on the kind of chart."""
