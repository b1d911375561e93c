"""What things cost, as ratios of interleaved timings on one machine (`firstspike bench`).

A part of the benchmark is a module here with one function, `rows(quick) -> list[Row]`: small sizes
named as such where `quick`, else the sizes whose results are stored in benchmarks/results/.
"""

from firstspike.bench.timing import Ratio, Row, interleaved, missing, ratio_rows, ratios, store

__all__ = ["Ratio", "Row", "interleaved", "missing", "ratio_rows", "ratios", "store"]
