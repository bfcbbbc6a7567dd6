# Ready-made rules: `make rules` builds them, `make rules-check` builds them elsewhere and compares the bytes with those in git.
PYTHON ?= python3
RULE_PYTHON = $(if $(wildcard $(VENV)/bin/python),$(abspath $(VENV)/bin/python),$(PYTHON))
RULE_CC = $(RULE_PYTHON) -m ziglang cc
RULE_FLAGS = $(shell cat rules/c/flags) -Werror
RULES = $(wildcard rules/ready/*/*.c)

.PHONY: rules rules-check
rules: $(RULES:.c=.wasm)   ## compile the ready-made rules (needs ziglang==0.17.1)

rules/ready/%.wasm: rules/ready/%.c rules/rules.mk $(wildcard rules/c/*)
	$(RULE_CC) $(RULE_FLAGS) -Irules/c $< -o $@ && chmod 644 $@

rules-check:   ## the modules in git are what their sources give, built in another directory
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && mkdir "$$copy/rules" && cp Makefile "$$copy" && cp -r rules/c rules/ready rules/rules.mk "$$copy/rules" \
	&& rm -f "$$copy"/rules/ready/*/*.wasm && $(MAKE) -s -C "$$copy" -f rules/rules.mk rules PYTHON="$(RULE_PYTHON)" \
	&& for m in rules/ready/*/*.wasm; do cmp "$$m" "$$copy/$$m" || exit 1; done && echo "rules-check: all modules are what their sources give"
