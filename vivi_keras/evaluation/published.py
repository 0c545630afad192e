"""Published VTAB-1k (v1) scores, to stand beside the same protocol alone.

How each is known: P, read in a public summary or leaderboard; R, recalled
and not checked. See docs/method.md.
"""

# (row, mean, natural, specialized, structured, how known)
VTAB_1K = (
    ("from scratch", 43.1, None, None, None, "P"),
    ("Rotation", 60.4, 53.7, 78.6, 57.3, "P"),
    ("Exemplar", 58.0, 48.9, 78.4, 55.8, "P"),
    ("VIVI-Ex(4)", 62.5, 55.9, 80.9, 59.1, "R"),
    ("VIVI-Ex(4)-Big", 63.3, 57.5, 81.0, 59.5, "R"),
    ("Semi-Ex-10%", 65.3, 70.2, 81.9, 52.7, "P"),
    ("Semi-Rotation-10%", 65.1, 69.6, 82.4, 52.5, "P"),
    ("VIVI-Ex(4)-Co(10%)", 67.2, 63.3, 82.6, 62.9, "mean P, groups R"),
    ("Sup-100%", 66.4, 73.5, 82.5, 52.1, "P"),
    ("Sup-Exemplar-100%", 67.7, 73.7, 83.1, 54.7, "P"),
    ("Sup-Rotation-100%", 68.0, 73.6, 83.1, 55.5, "P"),
    ("VIVI-Ex(4)-Co(100%)", 69.4, 69.9, 83.3, 62.1, "R"),
    ("VIVI-Ex(4)-Co(100%)-Big", 71.7, 72.5, 84.3, 64.7, "mean P, groups R"),
)
