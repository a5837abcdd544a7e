"""What is measured of a generator, one file per measure: functions of tensors, which know no files and no cluster.

A new measure of features is a function and a FeatureMeasure (kinds.py) in a file of this folder, one line in
registered.py, and a test. Figures, scores, report cards, table and chart then contain it.
"""
