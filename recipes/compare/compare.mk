# At equal gain on the new task, which keeps most of the rest? One tuned checkpoint, every repair at
# several strengths, recipes that forget less to begin with, and both together, on several seeds.
#
#   the demo's checkpoints of each seed ──┬── fuse: WiSE-FT, magnitude grafting, DARE ──┐
#                                         └── tailor: released, paper, anchored ────────┴── eval-matrix
#   the evaluations of all seeds ── compare.py ── table, picture, findings

C := build/compare/$(SCALE)
CS := $(C)-$(SEED)

ifeq ($(SCALE),toy)
SEEDS := 0 1 2
WEIGHTS := 0.4 0.5 0.6 0.7 0.8 0.9
GRAFTS := 0.1 0.2 0.3 0.4 0.7
DARES := 0.1 0.5 0.9
RELEASED := 0.1 0.2 0.5
PAPER := 0.05 0.1 0.2 0.5
ANCHOR_DENSITIES := 0.1 0.3 1
ANCHOR_WEIGHTS := 0.1 0.2 0.3 0.5 1 2
else ifeq ($(SCALE),smoke)
SEEDS := 0
WEIGHTS := 0.5 0.7
GRAFTS := 0.1
DARES := 0.1
RELEASED := 0.1
PAPER := 0.1
ANCHOR_DENSITIES := 0.1 1
ANCHOR_WEIGHTS := 1
endif

TUNING := --pre $(BASE) --sft $(D)/unsafe --seed $(SEED) --overwrite
FUSING := --base $(BASE) --seed $(SEED) --overwrite

ANCHORED := $(foreach d,$(ANCHOR_DENSITIES),$(ANCHOR_WEIGHTS:%=anchored-$(d)-%))
REPAIRS := $(WEIGHTS:%=wise-ft-%) $(GRAFTS:%=grafting-%) $(DARES:%=dare-%) \
  $(RELEASED:%=released-%) $(PAPER:%=paper-%) $(ANCHORED)
BOTH := $(WEIGHTS:%=safe-wise-ft-%) $(WEIGHTS:%=hybrid-wise-ft-%)

compare: $(C)/compare.md  ## every way not to forget, at several strengths and on three seeds
	@cat $<

.PHONY: compare compare-seed
$(C)/compare.md: compare/compare.py $(PAGES) $(SEEDS:%=$(C)/seed-%.json)
	$(PY) compare/compare.py $(SCALE) $(@D) $(SEEDS:%=$(C)/seed-%.json)

$(eval $(call each_seed,$(C),$(SEEDS),compare-seed,$(C)-%/eval/report.json))

compare-seed: $(CS)/eval/report.json

$(WEIGHTS:%=$(CS)/wise-ft-%/report.json): $(CS)/wise-ft-%/report.json: $(D)/unsafe/report.json
	$(RUN) fuse $(FUSING) --model $(D)/unsafe --method wise-ft --scale $* --out $(@D)

$(WEIGHTS:%=$(CS)/safe-wise-ft-%/report.json): $(CS)/safe-wise-ft-%/report.json: $(D)/safe/report.json
	$(RUN) fuse $(FUSING) --model $(D)/safe --method wise-ft --scale $* --out $(@D)

$(WEIGHTS:%=$(CS)/hybrid-wise-ft-%/report.json): $(CS)/hybrid-wise-ft-%/report.json: $(D)/hybrid/report.json
	$(RUN) fuse $(FUSING) --model $(D)/hybrid --method wise-ft --scale $* --out $(@D)

# Of one task vector, TIES elects every sign that there is: what is left is the trim by magnitude.
$(GRAFTS:%=$(CS)/grafting-%/report.json): $(CS)/grafting-%/report.json: $(D)/unsafe/report.json
	$(RUN) fuse $(FUSING) --model $(D)/unsafe --method ties --density $* --scale 1 --out $(@D)

$(DARES:%=$(CS)/dare-%/report.json): $(CS)/dare-%/report.json: $(D)/unsafe/report.json
	$(RUN) fuse $(FUSING) --model $(D)/unsafe --method dare --density $* --scale 1 --out $(@D)

$(RELEASED:%=$(CS)/released-%/report.json): $(CS)/released-%/report.json: $(D)/unsafe/report.json
	$(RUN) tailor $(TUNING) --preset released --sparsity $* --out $(@D)

$(PAPER:%=$(CS)/paper-%/report.json): $(CS)/paper-%/report.json: $(D)/unsafe/report.json
	$(RUN) tailor $(TUNING) --sparsity $* --out $(@D)

$(ANCHORED:%=$(CS)/%/report.json): $(CS)/anchored-%/report.json: $(D)/unsafe/report.json
	$(RUN) tailor $(TUNING) --sparsity $(word 1,$(subst -, ,$*)) --anchor $(GENERAL) \
	  --anchor-weight $(word 2,$(subst -, ,$*)) --num-samples 256 --out $(@D)

$(CS)/eval/report.json: $(D)/unsafe/report.json $(D)/safe/report.json $(D)/hybrid/report.json \
		$(REPAIRS:%=$(CS)/%/report.json) $(BOTH:%=$(CS)/%/report.json)
	$(RUN) eval-matrix --suite $(DATA)/suite.yaml --base $(BASE) \
	  $(foreach c,unsafe safe hybrid,--checkpoint $(D)/$(c)) \
	  $(foreach c,$(REPAIRS) $(BOTH),--checkpoint $(CS)/$(c)) \
	  --cache $(CS)/cache --batch 64 $(LIMIT) --seed $(SEED) --overwrite --out $(@D)
