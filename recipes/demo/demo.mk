# The demo: one fine-tuned task, ways not to forget the rest, one page that compares them.
#
#   base ── finetune: unsafe, safe, hybrid (half of its data is general) ──┐
#             │        second (another task, for fusion)                   │
#             ├── tailor: paper's preset, anchored                         ├── eval-matrix ── page
#             └── fuse: WiSE-FT with the base; two tasks into one ─────────┘

D := build/demo/$(SCALE)-$(SEED)
DATA := $(D)/data
TARGET := $(DATA)/garment-name.jsonl
SECOND := $(DATA)/digit-next.jsonl
GENERAL := $(DATA)/general.jsonl
BASE := demo/base
TUNED := unsafe safe hybrid
WISE := wise-ft-0.5 wise-ft-0.7
REPAIRED := tailor-paper tailor-anchored $(WISE)
PAGE := $(D)/eval/report.json

ifeq ($(SCALE),toy)
STEPS :=
SECOND_STEPS := --steps 200
LIMIT := --limit 300
else ifeq ($(SCALE),smoke)
STEPS := --steps 4
SECOND_STEPS := $(STEPS)
LIMIT := --limit 40 --bootstrap 500
endif

demo: $(PAGE) $(D)/eval-two/report.json  ## the whole main job on real images
	@echo "$(abspath $(D))/eval/report.html"

$(DATA)/suite.yaml: demo/samples.py $(wildcard demo/data/*.parquet) | $(ENV)
	$(PY) demo/samples.py demo/data $(DATA)

$(D)/mix/report.json: $(DATA)/suite.yaml demo/finetune/hybrid.yaml
	$(RUN) mix-data --source target=$(TARGET):0.5 --source general=$(GENERAL):0.5 \
	  --total 10000 --seed $(SEED) --overwrite --out $(@D)

$(D)/unsafe/report.json $(D)/safe/report.json: $(D)/%/report.json: \
		demo/finetune/%.yaml $(DATA)/suite.yaml $(BASE)/model.safetensors
	$(RUN) finetune --recipe $< $(STEPS) --model $(BASE) --samples $(TARGET) \
	  --seed $(SEED) --overwrite --out $(@D)

$(D)/hybrid/report.json: demo/finetune/hybrid.yaml $(D)/mix/report.json $(BASE)/model.safetensors
	$(RUN) finetune --recipe $< $(STEPS) --model $(BASE) --samples $(D)/mix/samples.jsonl \
	  --seed $(SEED) --overwrite --out $(@D)

$(D)/second/report.json: demo/finetune/unsafe.yaml $(DATA)/suite.yaml $(BASE)/model.safetensors
	$(RUN) finetune --recipe $< $(SECOND_STEPS) --model $(BASE) --samples $(SECOND) \
	  --seed $(SEED) --overwrite --out $(@D)

$(D)/tailor-paper/report.json: $(D)/unsafe/report.json
	$(RUN) tailor --pre $(BASE) --sft $(D)/unsafe --sparsity 0.1 \
	  --seed $(SEED) --overwrite --out $(@D)

$(D)/tailor-anchored/report.json: $(D)/unsafe/report.json
	$(RUN) tailor --pre $(BASE) --sft $(D)/unsafe --sparsity 1.0 --anchor $(GENERAL) \
	  --num-samples 256 --seed $(SEED) --overwrite --out $(@D)

$(WISE:%=$(D)/%/report.json): $(D)/wise-ft-%/report.json: $(D)/unsafe/report.json
	$(RUN) fuse --base $(BASE) --model $(D)/unsafe --method wise-ft --scale $* \
	  --overwrite --out $(@D)

$(D)/two/report.json: $(D)/unsafe/report.json $(D)/second/report.json
	$(RUN) fuse --base $(BASE) --model $(D)/unsafe --model $(D)/second --method ties \
	  --overwrite --out $(@D)

$(PAGE): $(TUNED:%=$(D)/%/report.json) $(REPAIRED:%=$(D)/%/report.json)
	$(RUN) eval-matrix --suite $(DATA)/suite.yaml --base $(BASE) \
	  $(foreach c,$(TUNED) $(REPAIRED),--checkpoint $(D)/$(c)) \
	  --batch 64 $(LIMIT) --seed $(SEED) --overwrite --out $(@D)

$(D)/eval-two/report.json: $(D)/two/report.json
	$(RUN) eval-matrix --suite $(DATA)/suite-two.yaml --base $(BASE) \
	  $(foreach c,unsafe second two,--checkpoint $(D)/$(c)) \
	  --batch 64 $(LIMIT) --seed $(SEED) --overwrite --out $(@D)
