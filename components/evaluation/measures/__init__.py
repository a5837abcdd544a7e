"""What is measured of a generator, one file per measure.

A new measure is a function and a FeatureMeasure or GeneratorMeasure (kinds.py) in a file of this folder, one line in
registered.py, and a test. Figures, scores, report cards, table and chart then contain it.
"""
