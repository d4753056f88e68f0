# Figures and Table 1 of arXiv 2603.14493 on the demo's base, data and suite.
#
#   the demo's suite ── build-vqa --distract ── suite ──┐
#   fig3:  the demo's checkpoints ──────────────────────┤
#   fig4:  auxiliary sets ── mix-data ── finetune ──────┼── eval-matrix ── figN.py ── page
#   fig2:  finetune of each part, method and rate ──────┘
#
# fig4 is drawn over seeds, a make of its own each; fig2 and fig3 on one, over items.

FIGS := build/figures/$(SCALE)
FIG := $(FIGS)-$(SEED)
PARTS.language := language
PARTS.projector := projector
PARTS.vision+projector := vision projector
PARTS.all := vision projector language

ifeq ($(SCALE),toy)
FIG_LIMIT := --limit 300
DISTRACTOR_LIMIT :=
FIG2_PARTS := language projector vision+projector all
FIG2_FULL := 0.001 0.0003 0.0001
FIG2_LORA := 0.003 0.001 0.0003
FIG2_SAVED := 50 100 150
FIG4_SEEDS := 0 1 2
FIG4_TOTAL := 9600
FIG4_TARGET := 2880
FIG4_SHARES := 0 0.1 0.3 0.5
else ifeq ($(SCALE),smoke)
FIG_LIMIT := --limit 5 --bootstrap 200
DISTRACTOR_LIMIT := --limit 20 --bootstrap 200
FIG2_PARTS := language
FIG2_FULL := 0.001 0.0001
FIG2_LORA := 0.003
FIG2_SAVED := 1 2
FIG4_SEEDS := 0
FIG4_TOTAL := 128
FIG4_TARGET := 39
FIG4_SHARES := 0 0.5
endif

# The largest share is one run of both sweeps: it sees FIG4_TARGET of the target in FIG4_TOTAL.
FIG4_MOST := general-0.7
AUXILIARY := same-text one-task fake
FIG4A := general-0 general-0.5 $(AUXILIARY:%=%-0.5)
FIG4B := $(FIG4_SHARES:%=general-%) $(FIG4_MOST) $(FIG4_SHARES:%=iso-%)
FIG4 := $(sort $(FIG4A) $(FIG4B))
share = $(lastword $(subst -, ,$1))
source = $(patsubst %-$(call share,$1),%,$1)
FILE.general := $(GENERAL)
FILE.iso := $(GENERAL)
$(foreach set,$(AUXILIARY),$(eval FILE.$(set) := $(FIG)/auxiliary/$(set).jsonl))
BUDGET.iso := --keep-target $(FIG4_TARGET)

FIG2 := $(foreach part,$(FIG2_PARTS),$(FIG2_FULL:%=$(part)-full-%) $(FIG2_LORA:%=$(part)-lora-%))

.PHONY: fig2 fig3 fig4a fig4b fig4a-seed fig4b-seed
fig2: $(FIG)/fig2/fig2.md  ## what learns, how and at which rate: curves by quadrant, and Table 1
	@cat $<

fig3: $(FIG)/fig3/fig3.md  ## the class-name distractor test before and after tuning
	@cat $<

fig4a: $(FIGS)/fig4a/fig4a.md  ## auxiliary sets as half of the mix, on three seeds
	@cat $<

fig4b: $(FIGS)/fig4b/fig4b.md  ## the share of general data, and the target's samples held, on three seeds
	@cat $<

# The distractor test.

$(FIG)/distracted/report.json: $(DATA)/suite.yaml
	$(RUN) build-vqa --images $(DATA)/tasks/garment-kind-choice.jsonl --distract class_name \
	  --seed $(SEED) --overwrite --out $(@D)

$(FIG)/suite.yaml: figures/suites.py hybrid/prepare.py $(FIG)/distracted/report.json
	$(PY) figures/suites.py $(DATA) $(@D)

$(FIG)/fig3-eval/report.json: $(FIG)/suite.yaml $(TUNED:%=$(D)/%/report.json)
	$(RUN) eval-matrix --suite $(FIG)/distractor.yaml --base $(BASE) \
	  $(foreach c,$(TUNED),--checkpoint $(D)/$(c)) \
	  --batch 64 $(DISTRACTOR_LIMIT) --seed $(SEED) --overwrite --out $(@D)

$(FIG)/fig3/fig3.md: figures/fig3.py figures/readings.py $(PAGES) $(FIG)/fig3-eval/report.json
	$(PY) $< $(SCALE) $(@D) $(FIG)/fig3-eval/report.json

# Auxiliary sets and shares.

$(FIG)/auxiliary/fake.jsonl: figures/auxiliary.py demo/samples.py $(wildcard demo/data/*.parquet) | $(ENV)
	$(PY) figures/auxiliary.py demo/data $(@D)

$(FIG4:%=$(FIG)/mix-%/report.json): $(FIG)/mix-%/report.json: \
		$(DATA)/suite.yaml $(FIG)/auxiliary/fake.jsonl
	$(RUN) mix-data --source target=$(TARGET):$$(awk 'BEGIN { print 1 - $(call share,$*) }') \
	  --source $(call source,$*)=$(FILE.$(call source,$*)):$(call share,$*) \
	  $(or $(BUDGET.$(call source,$*)),--total $(FIG4_TOTAL)) \
	  --images $(DATA) --max-repeat 2 --seed $(SEED) --overwrite --out $(@D)

$(FIG4:%=$(FIG)/fig4/%/report.json): $(FIG)/fig4/%/report.json: \
		figures/tuning.yaml $(FIG)/mix-%/report.json $(BASE)/model.safetensors
	$(RUN) finetune --recipe $< --model $(BASE) --samples $(FIG)/mix-$*/samples.jsonl \
	  --seed $(SEED) --overwrite --out $(@D)

fig4a-seed: $(FIG)/fig4a-eval/report.json
fig4b-seed: $(FIG)/fig4b-eval/report.json
$(FIG)/fig4a-eval/report.json: $(FIG4A:%=$(FIG)/fig4/%/report.json)
$(FIG)/fig4b-eval/report.json: $(FIG4B:%=$(FIG)/fig4/%/report.json)
$(FIG)/fig4a-eval/report.json $(FIG)/fig4b-eval/report.json: $(FIG)/suite.yaml
	$(RUN) eval-matrix --suite $(FIG)/suite.yaml --base $(BASE) --cache $(FIG)/cache \
	  $(patsubst %/report.json,--checkpoint %,$(filter $(FIG)/fig4/%,$^)) \
	  --batch 64 $(FIG_LIMIT) --seed $(SEED) --overwrite --out $(@D)

$(eval $(call each_seed,$(FIGS)/fig4a,$(FIG4_SEEDS),fig4a-seed,$(FIGS)-%/fig4a-eval/report.json))
$(eval $(call each_seed,$(FIGS)/fig4b,$(FIG4_SEEDS),fig4b-seed,$(FIGS)-%/fig4b-eval/report.json))

$(FIGS)/fig4a/fig4a.md: figures/fig4a.py $(FIG4_SEEDS:%=$(FIGS)/fig4a/seed-%.json)
$(FIGS)/fig4b/fig4b.md: figures/fig4b.py $(FIG4_SEEDS:%=$(FIGS)/fig4b/seed-%.json)
$(FIGS)/fig4a/fig4a.md $(FIGS)/fig4b/fig4b.md: figures/readings.py $(PAGES)
	$(PY) $(filter %/$(basename $(@F)).py,$^) $(SCALE) $(@D) $(filter %.json,$^)

# What learns, how and at which rate: PART-METHOD-RATE, a checkpoint at every step saved.

$(FIG2:%=$(FIG)/fig2-runs/%/report.json): $(FIG)/fig2-runs/%/report.json: \
		$(DATA)/suite.yaml $(BASE)/model.safetensors
	$(RUN) finetune --model $(BASE) --samples $(TARGET) \
	  $(foreach part,$(PARTS.$(word 1,$(subst -, ,$*))),--train $(part)=$(word 2,$(subst -, ,$*))) \
	  --lr $(word 3,$(subst -, ,$*)) --batch 64 --micro-batch 64 \
	  --steps $(lastword $(FIG2_SAVED)) --save-every $(firstword $(FIG2_SAVED)) --save-checkpoints \
	  --seed $(SEED) --overwrite --out $(@D)

$(FIG)/fig2-eval/report.json: $(FIG)/suite.yaml $(FIG2:%=$(FIG)/fig2-runs/%/report.json)
	$(RUN) eval-matrix --suite $(FIG)/suite.yaml --base $(BASE) \
	  $(foreach run,$(FIG2),$(foreach step,$(FIG2_SAVED),\
	    --checkpoint $(run)-$(step)=$(FIG)/fig2-runs/$(run)/saved/checkpoint-$(step))) \
	  --batch 64 --workers $(JOBS) $(FIG_LIMIT) --seed $(SEED) --overwrite --out $(@D)

$(FIG)/fig2/fig2.md: figures/fig2.py figures/readings.py $(PAGES) $(FIG)/fig2-eval/report.json
	$(PY) $< $(SCALE) $(@D) $(FIG)/fig2-eval/report.json
