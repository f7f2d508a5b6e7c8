"""How answers reach a person or a program: tables and the words they cannot go without, JSON, CSV, Parquet."""
