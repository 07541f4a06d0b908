"""The small world: problems, requests and judgements in two languages, and the corpus of the tiny base model.

Imported by ``tools/make_world.py`` and ``tools/make_base.py``; described for people in ``configs/tiny/README.md``.
"""
