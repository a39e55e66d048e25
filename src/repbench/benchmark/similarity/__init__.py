"""Similarity of representations: of two layers, of a layer with labels, and the file that keeps the numbers.

`cka`, `cca` and `mutual_information` are pure functions of arrays; `sample` chooses the instants, `frames` reads the
features there, `measures` computes all numbers with their intervals, and `document` writes and reads them.
"""
