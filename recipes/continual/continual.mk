# Three tasks one after another, in three orders, after arXiv 2603.14493, section 5, and MLLM-CL.
#
#   the base ── finetune ── finetune ── finetune     a chain each method, a checkpoint each stage
#   samples: the stage's own, or mix-data --mode replay with some of each earlier stage's
#   every chain ── eval-matrix --stages ──┐
#   all tasks at once ── eval-matrix ─────┴── continual.py ── page
#
# A checkpoint is METHOD/STATE, a state the tasks learned so far: full/garment-digit starts from
# full/garment. Orders are rotations, so that each task comes first, second and last once.

CT := build/continual/$(SCALE)-$(SEED)
CT_FILE.garment := $(TARGET)
CT_FILE.digit := $(SECOND)
CT_FILE.shape := $(CT)/tasks/shape-corners.jsonl
CT_TASK.garment := garment-name
CT_TASK.digit := digit-next
CT_TASK.shape := shape-corners
CT_REPLAYED := 20

ifeq ($(SCALE),toy)
CT_METHODS := full lora full-replay lora-replay high kl wise-ft
CT_ORDERS := garment-digit-shape digit-shape-garment shape-garment-digit
CT_STEPS := 80
CT_JOINT_STEPS := 240
CT_LIMIT := --limit 300
else ifeq ($(SCALE),smoke)
CT_METHODS := full full-replay wise-ft
CT_ORDERS := garment-digit
CT_STEPS := 1
CT_JOINT_STEPS := 1
CT_LIMIT := --limit 5 --bootstrap 200
endif

# All learn language part and projector; `high` at five times the rate of `full`, and on its rate
# what is to keep the earlier stages: the divergence from the stage before (Learning without
# Forgetting), or WiSE-FT with it, of which `tuned` is the half that was not fused yet.
CT_LOW := --recipe continual/full.yaml
CT_HOW.full := $(CT_LOW)
CT_HOW.full-replay := $(CT_LOW)
CT_HOW.high := $(CT_LOW) --lr 1e-3
CT_HOW.tuned := $(CT_LOW) --lr 1e-3
CT_HOW.kl := $(CT_LOW) --lr 1e-3 --keep '{kl: 1}'
CT_HOW.lora := --recipe continual/lora.yaml
CT_HOW.lora-replay := --recipe continual/lora.yaml

# These differ from another method only from the second stage on, and share its first.
CT_FIRST.full-replay := full
CT_FIRST.lora-replay := lora
CT_FIRST.tuned := high

ct_last = $(lastword $(subst -, ,$1))
ct_before = $(patsubst %-$(call ct_last,$1),%,$1)
ct_stages = $(sort $(call ct_before,$(call ct_before,$1)) $(call ct_before,$1) $1)
ct_run = $(CT)/$(if $(findstring -,$2),$1,$(or $(CT_FIRST.$1),$1))/$2
ct_start = $(if $(findstring -,$2),$(call ct_run,$(subst tuned,wise-ft,$1),$(call ct_before,$2)),$(BASE))
ct_made = $(if $(filter $(BASE),$1),$1/model.safetensors,$1/report.json)
ct_replayed = $(and $(filter %-replay,$1),$(CT)/replay/$2)
ct_samples = $(or $(patsubst %,%/samples.jsonl,$(ct_replayed)),$(CT_FILE.$(call ct_last,$2)) --images $(DATA))
ct_sources = $(foreach name,$(subst -, ,$1),--source $(name)=$(CT_FILE.$(name)))

CT_STATES := $(foreach order,$(CT_ORDERS),$(call ct_stages,$(order)))
CT_LATER := $(foreach state,$(CT_STATES),$(if $(findstring -,$(state)),$(state)))
CT_EVALS := $(foreach method,$(CT_METHODS),$(CT_ORDERS:%=$(CT)/eval/$(method)/%/report.json))

.PHONY: continual
continual: $(CT)/continual/continual.md  ## tasks one after another: what keeps the earlier ones? Three orders
	@cat $<

$(CT)/tasks/suite.yaml: continual/tasks.py demo/samples.py hybrid/prepare.py $(DATA)/suite.yaml
	$(PY) $< demo/data $(DATA) $(@D)

$(CT_LATER:%=$(CT)/replay/%/report.json): $(CT)/replay/%/report.json: $(CT)/tasks/suite.yaml
	$(RUN) mix-data --mode replay --replay $(CT_REPLAYED) $(call ct_sources,$*) \
	  --images $(DATA) --seed $(SEED) --overwrite --out $(@D)

# Of a method and a state.
define ct_tuning
$(call ct_run,$1,$2)/report.json: $(word 2,$(CT_HOW.$1)) $(CT)/tasks/suite.yaml \
		$(call ct_made,$(call ct_start,$1,$2)) $(patsubst %,%/report.json,$(call ct_replayed,$1,$2))
	$$(RUN) finetune $(CT_HOW.$1) --model $(call ct_start,$1,$2) --samples $(call ct_samples,$1,$2) \
	  --steps $(CT_STEPS) --seed $(SEED) --overwrite --out $$(@D)
endef

define ct_fusing
$(CT)/wise-ft/$1/report.json: $(call ct_made,$(call ct_start,wise-ft,$1)) $(call ct_run,tuned,$1)/report.json
	$$(RUN) fuse --base $(call ct_start,wise-ft,$1) --model $(call ct_run,tuned,$1) \
	  --method wise-ft --scale 0.5 --overwrite --out $$(@D)
endef

# Of a method and an order.
define ct_evaluation
$(CT)/eval/$1/$2/report.json: $(foreach state,$(call ct_stages,$2),$(call ct_run,$1,$(state))/report.json)
	$$(RUN) eval-matrix --suite $(CT)/tasks/suite.yaml --base $(BASE) --cache $(CT)/cache \
	  $(foreach state,$(call ct_stages,$2),--checkpoint $(state)=$(call ct_run,$1,$(state))) \
	  $(foreach state,$(call ct_stages,$2),--stages $(state)=$(CT_TASK.$(call ct_last,$(state)))) \
	  --batch 64 $(CT_LIMIT) --seed $(SEED) --overwrite --out $$(@D)
endef

$(foreach state,$(CT_STATES),\
  $(foreach method,full lora high kl,$(eval $(call ct_tuning,$(method),$(state))))\
  $(eval $(call ct_fusing,$(state))))
$(foreach state,$(CT_LATER),\
  $(foreach method,full-replay lora-replay tuned,$(eval $(call ct_tuning,$(method),$(state)))))
$(foreach order,$(CT_ORDERS),\
  $(foreach method,$(CT_METHODS),$(eval $(call ct_evaluation,$(method),$(order)))))

$(CT)/joint-mix/report.json: $(CT)/tasks/suite.yaml
	$(RUN) mix-data $(foreach name,garment digit shape,--source $(name)=$(CT_FILE.$(name)):1) --normalize \
	  --total $$(( $(CT_JOINT_STEPS) * 64 )) --max-repeat 5 \
	  --images $(DATA) --seed $(SEED) --overwrite --out $(@D)

$(CT)/joint/report.json: continual/full.yaml $(CT)/joint-mix/report.json $(BASE)/model.safetensors
	$(RUN) finetune $(CT_LOW) --model $(BASE) --samples $(CT)/joint-mix/samples.jsonl \
	  --steps $(CT_JOINT_STEPS) --seed $(SEED) --overwrite --out $(@D)

$(CT)/eval/joint/report.json: $(CT)/joint/report.json
	$(RUN) eval-matrix --suite $(CT)/tasks/suite.yaml --base $(BASE) --cache $(CT)/cache \
	  --checkpoint $(<D) --batch 64 $(CT_LIMIT) --seed $(SEED) --overwrite --out $(@D)

$(CT)/continual/continual.md: continual/continual.py $(PAGES) $(CT)/eval/joint/report.json $(CT_EVALS)
	$(PY) $< $(SCALE) $(@D) $(filter %.json,$^)
