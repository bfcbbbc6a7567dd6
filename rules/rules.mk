# Ready-made rules: `make rules` builds them, `make rules-check` builds them elsewhere and compares the bytes with those in git.
PYTHON ?= python3
RULE_PYTHON = $(if $(wildcard $(VENV)/bin/python),$(abspath $(VENV)/bin/python),$(PYTHON))
RULE_CC = $(RULE_PYTHON) -m ziglang cc
RULE_FLAGS = $(shell cat rules/c/flags) -Werror
RULES = $(wildcard rules/ready/*/*.c)
# What SQL is compiled into. Its functions of numbers are wasi-libc's; nothing of WASI is imported.
SQL_TEMPLATE = rules/rulec/sql/template.wasm
SQL_FLAGS = $(subst -nostdlib,-mexec-model=reactor -lm -Wl$(comma)--strip-debug,$(subst wasm32-freestanding,wasm32-wasi,$(RULE_FLAGS)))
comma = ,

.PHONY: rules rules-check
rules: $(RULES:.c=.wasm) $(SQL_TEMPLATE)   ## compile the ready-made rules and the template of SQL (needs ziglang==0.17.1)

$(foreach c,$(RULES),$(eval $(c:.c=.wasm): $(dir $(c))cases.samples))
rules/ready/%.wasm: rules/ready/%.c rules/rules.mk $(wildcard rules/c/*)
	$(RULE_CC) $(RULE_FLAGS) -Irules/c -I$(dir $<) $< -o $@ && chmod 644 $@

$(SQL_TEMPLATE): rules/sql/sql_rule.c rules/rules.mk $(wildcard rules/c/*.h rules/sql/*.h)
	$(RULE_CC) $(SQL_FLAGS) -Irules/c -Irules/sql $< -o $@ && chmod 644 $@

rules-check:   ## the modules in git are what their sources give, built in another directory
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && mkdir -p "$$copy/rules/rulec/sql" && cp Makefile "$$copy" && cp -r rules/c rules/ready rules/sql rules/rules.mk "$$copy/rules" \
	&& rm -f "$$copy"/rules/ready/*/*.wasm && $(MAKE) -s -C "$$copy" -f rules/rules.mk rules PYTHON="$(RULE_PYTHON)" \
	&& for m in rules/ready/*/*.wasm $(SQL_TEMPLATE); do cmp "$$m" "$$copy/$$m" || exit 1; done && echo "rules-check: all modules are what their sources give"
