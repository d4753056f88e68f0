# Tables and sweeps of Model Tailor (arXiv 2402.12048) on the demo's base, data and suite.
#
#   compare's repairs of the demo's tuned checkpoint, three seeds ── tailor-main ──────────┐
#   tailor --sweep density ── patch apply ── tailor-sparsity, and on an adapter -lora ─────┤
#   tailor with each criterion of the mask ── tailor-mask ─────────────────────────────────┤
#   two tuned checkpoints: tailor --combine, fuse ── tailor-multitask ─────────────────────┤
#                                                            eval-matrix ── tables.py ── page
#
# Predictions are shared through compare's cache: no checkpoint answers twice.

T := build/tailor/$(SCALE)
TS := $(T)-$(SEED)
TAILOR := main sparsity mask multitask lora

ifeq ($(SCALE),toy)
DENSITIES := 0.01 0.05 0.1 0.2 0.5 1
LORA_DENSITIES := 0.1 0.2 0.5 1
WAYS := decorated bare anchored lora lora-bare lora-anchored
MASKS := magnitude salience sensitivity fused fused-0.8 weight fused-weight rank block row
COMBINED := mean sum average ties joint
FUSED := linear task-arithmetic ties dare-ties
else ifeq ($(SCALE),smoke)
DENSITIES := 0.1
LORA_DENSITIES := 0.2
WAYS := decorated lora
MASKS := magnitude fused
COMBINED := mean
FUSED := task-arithmetic
FEW := --num-samples 16
endif

MAIN := $(filter wise-ft-0.5 wise-ft-0.7 grafting-0.1 dare-0.1 released-0.1 paper-0.1 anchored-0.1-1 \
  anchored-0.3-0.3 anchored-1-1 anchored-1-0.3,$(REPAIRS))
LORA := $(FIG)/fig2-runs/language-lora-$(firstword $(FIG2_LORA))
comma := ,
commas = $(subst $() ,$(comma),$1)

# What is swept, over which densities.
ADAPTED := --sft $(LORA)/adapter-language --calibration $(TARGET)
SWEEP.decorated := --sft $(D)/unsafe
SWEEP.bare := $(SWEEP.decorated) --solver none
SWEEP.anchored := $(SWEEP.decorated) --anchor $(GENERAL)
SWEEP.lora := $(ADAPTED)
SWEEP.lora-bare := $(ADAPTED) --solver none
SWEEP.lora-anchored := $(ADAPTED) --anchor $(GENERAL)
$(foreach way,$(WAYS),$(eval OVER.$(way) := $(if $(filter lora%,$(way)),$(LORA_DENSITIES),$(DENSITIES))))
points = $(foreach way,$1,$(OVER.$(way):%=$(way)-%))

MASK.magnitude := --salience-weight 1 --mask '{normalise: none}'
MASK.salience := --salience-weight 1
MASK.sensitivity := --salience-weight 0
MASK.fused := --salience-weight 0.5
MASK.fused-0.8 := --salience-weight 0.8
MASK.weight := --salience-weight 0 --mask '{sensitivity: weight}'
MASK.fused-weight := --salience-weight 0.5 --mask '{sensitivity: weight}'
MASK.rank := --mask '{normalise: rank}'
MASK.block := --mask '{normalise: block, scope: block}'
MASK.row := --mask '{scope: row}'
MASKED := $(MASKS:%=mask-%) $(MASKS:%=bare-mask-%)

CHECKPOINTS.main := $(D)/unsafe $(MAIN:%=$(CS)/%)
CHECKPOINTS.sparsity := $(D)/unsafe $(patsubst %,$(TS)/%,$(call points,$(filter-out lora%,$(WAYS))))
CHECKPOINTS.mask := $(D)/unsafe $(MASKED:%=$(TS)/%)
CHECKPOINTS.multitask := $(D)/unsafe $(D)/second $(COMBINED:%=$(TS)/patches-%) $(FUSED:%=$(TS)/fuse-%)
CHECKPOINTS.lora := $(LORA) $(patsubst %,$(TS)/%,$(call points,$(filter lora%,$(WAYS)))) $(TS)/lora-wise-ft-0.5
SUITE.multitask := suite-two.yaml

.PHONY: $(TAILOR:%=tailor-%) tailor-main-seed
tailor-main: $(T)/tailor-main/tailor-main.md  ## Model Tailor against what repairs otherwise, on three seeds
	@cat $<

tailor-sparsity: $(TS)/tailor-sparsity/tailor-sparsity.md  ## the share that is kept, decorated, bare and anchored
	@cat $<

tailor-mask: $(TS)/tailor-mask/tailor-mask.md  ## by what the kept weights are chosen
	@cat $<

tailor-multitask: $(TS)/tailor-multitask/tailor-multitask.md  ## two tuned checkpoints in one
	@cat $<

tailor-lora: $(TS)/tailor-lora/tailor-lora.md  ## a LoRA adapter, tailored
	@cat $<

$(WAYS:%=$(TS)/swept-%/report.json): $(TS)/swept-%/report.json:
	$(RUN) tailor --pre $(BASE) $(SWEEP.$*) --sweep density=$(call commas,$(OVER.$*)) $(FEW) \
	  --seed $(SEED) --overwrite --out $(@D)

$(patsubst %,$(TS)/swept-%/report.json,$(filter-out lora%,$(WAYS))): $(D)/unsafe/report.json
$(patsubst %,$(TS)/swept-%/report.json,$(filter lora%,$(WAYS))): $(LORA)/report.json
$(TS)/lora-wise-ft-0.5/report.json: $(LORA)/report.json
	$(RUN) fuse $(FUSING) --model $(LORA) --method wise-ft --scale 0.5 --out $(@D)

$(foreach way,$(WAYS),$(eval $(OVER.$(way):%=$(TS)/$(way)-%/report.json): $(TS)/swept-$(way)/report.json))
$(patsubst %,$(TS)/%/report.json,$(call points,$(WAYS))): $(TS)/%/report.json:
	$(RUN) patch apply $(<D)/density-$(call share,$*)/patch.safetensors --base $(BASE) \
	  --overwrite --out $(@D)

$(MASKED:%=$(TS)/%/report.json): $(TS)/%/report.json: $(D)/unsafe/report.json
	$(RUN) tailor $(TUNING) $(if $(filter bare-%,$*),--solver none) \
	  $(MASK.$(patsubst mask-%,%,$(patsubst bare-%,%,$*))) --sparsity 0.1 $(FEW) --out $(@D)

$(COMBINED:%=$(TS)/patches-%/report.json): $(TS)/patches-%/report.json: \
		$(D)/unsafe/report.json $(D)/second/report.json
	$(RUN) tailor $(TUNING) --sft $(D)/second --combine $* --sparsity 0.1 $(FEW) --out $(@D)

$(FUSED:%=$(TS)/fuse-%/report.json): $(TS)/fuse-%/report.json: \
		$(D)/unsafe/report.json $(D)/second/report.json
	$(RUN) fuse $(FUSING) --model $(D)/unsafe --model $(D)/second --method $* --out $(@D)

$(foreach t,$(TAILOR),$(eval $(TS)/eval-$t/report.json: $(CHECKPOINTS.$t:%=%/report.json)))
$(TAILOR:%=$(TS)/eval-%/report.json): $(TS)/eval-%/report.json: $(DATA)/suite.yaml
	$(RUN) eval-matrix --suite $(DATA)/$(or $(SUITE.$*),suite.yaml) --base $(BASE) \
	  $(patsubst %,--checkpoint %,$(patsubst $(LORA),adapter=$(LORA),$(CHECKPOINTS.$*))) --cache $(CS)/cache \
	  --batch 64 $(LIMIT) --seed $(SEED) --overwrite --out $(@D)

tailor-main-seed: $(TS)/eval-main/report.json
$(eval $(call each_seed,$(T)/tailor-main,$(SEEDS),tailor-main-seed,$(T)-%/eval-main/report.json))
$(T)/tailor-main/tailor-main.md: $(SEEDS:%=$(T)/tailor-main/seed-%.json)
TABLES := $(foreach t,$(filter-out main,$(TAILOR)),$(TS)/tailor-$t/tailor-$t.md)
$(foreach t,$(filter-out main,$(TAILOR)),$(eval $(TS)/tailor-$t/tailor-$t.md: $(TS)/eval-$t/report.json))
$(T)/tailor-main/tailor-main.md $(TABLES): \
		tailor/tables.py tailor/claims.py figures/readings.py $(PAGES)
	$(PY) tailor/tables.py $(basename $(@F)) $(SCALE) $(@D) $(filter %.json,$^)
