"""The words from which the tiny model's tokenizer learns its pieces."""

WHOLE_WORDS: tuple[str, ...] = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black"),
    *("bar", "line", "pie", "chart", "barh", "yes", "no", "slice", "user", "assistant"),
)
"""One piece each: lower-case and capitalised, with and without a space before."""

OPENERS: tuple[str, ...] = (
    *("What", "Which", "How", "Is", "Does", "Do", "Are", "Has", "Count", "Name", "In", "The"),
)
"""Words a question begins with."""

CHART_WORDS: tuple[str, ...] = tuple(
    """
    the of a is in at to how many what which does do are from and than has more at it all one
    color bar bars line lines slice slices pie chart graph count number value level position
    largest smallest tallest shortest highest lowest longest biggest greatest least max min top
    bottom left right first second third fourth fifth sixth seventh eighth ninth tenth last end
    ends start starts begin begins higher lower larger smaller bigger taller longer shorter
    greater less twice double half quarter third percent share whole total sum average mean
    above below over under between compare compared difference same equal order sorted up down
    rise rises rising fall falls falling trend increase increases decrease decreases grow grows
    drop drops any there exist exists contain contains shown show shows see seen appear appears
    kind type sort figure plot picture image diagram horizontal vertical column columns row rows
    mark marks point points series curve curves wedge sector part segment item label labels name
    names hue place counting counted clockwise after next following on with for by that this
    read list every transcribe scan year years month day time data set axis legend title tick
    much have had was were be been not or if as its their each other two three four five six
    seven eight nine ten times only also most few reach reaches rank peak high low wide widest
    thin thinnest narrowest going goes go back far long short tall big small large great overall
    light dark white cyan teal olive navy magenta violet grey answer question give tell look find
    """.split()  # noqa: SIM905
)
"""Common words of questions about charts, the most frequent ones first."""
