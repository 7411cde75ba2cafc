"""What the built-in study is made of: a generated corpus with known insults, and a model small enough to learn it in
minutes. `python -m benchmarks.demo_corpus` writes what the package ships of it, `ifguide/data/demo.zip`."""
