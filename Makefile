# `make X` is `python3 dev.py X`.
.PHONY: demo test lint bench wheels lab system snapshot
demo test lint bench wheels lab system snapshot:
	@python3 dev.py $@
