"""The report: figures, tables, sentences and the page, made from the tables of the other stages."""
