.PHONY: lint test slow bench docs wheel

lint:
	ruff check . && ruff format --check .

test:
	pytest -n 2 --dist loadfile

slow:
	pytest -m slow -n 2 --dist worksteal --ignore=tests/test_faults.py

bench:
	python -m benchmarks

docs:
	python -m sphinx -W --keep-going -b html docs build/docs

wheel:
	python -m build --wheel
