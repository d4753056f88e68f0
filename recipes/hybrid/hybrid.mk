# Data-hybrid training from labelled images: how large a share of general samples keeps the rest?
#
#   CSV of garments ── build-vqa ── mix-data at each share ── finetune ──┐
#   the same, of the test pictures ── build-vqa ─────────────────────────┼── eval-matrix ── page
#   a question about garments ── build-vqa --distract class_name ────────┘
#
# Four versions of each question make the target as large as the whole mix, so that no share repeats
# a sample. arXiv 2603.14493 sweeps 0 to 70 % the same way, with the total held.

H := build/hybrid/$(SCALE)-$(SEED)
HDATA := $(H)/data
SHARES := 0 0.1 0.5 0.7

ifeq ($(SCALE),toy)
HYBRID_TOTAL := 10000
HYBRID_STEPS :=
HYBRID_LIMIT := --limit 300
else ifeq ($(SCALE),smoke)
HYBRID_TOTAL := 100
HYBRID_STEPS := --steps 2 --batch 16 --micro-batch 16
HYBRID_LIMIT := --limit 10 --bootstrap 200
endif

ASK := build-vqa --question "What is this?" --answer text --image-root $(HDATA)/images

hybrid: $(H)/eval/report.json  ## shares of general data in training, from labelled images to a page
	@echo "$(abspath $(H))/eval/report.html"

$(HDATA)/suite.yaml: demo/samples.py $(wildcard demo/data/*.parquet) | $(ENV)
	$(PY) demo/samples.py demo/data $(HDATA)

$(H)/suite.yaml: hybrid/prepare.py $(HDATA)/suite.yaml
	$(PY) hybrid/prepare.py demo/data/garments.parquet $(HDATA) $(H)

$(H)/train/report.json: $(H)/suite.yaml
	$(RUN) $(ASK) --images $(H)/train.csv --per-epoch 4 --seed $(SEED) --overwrite --out $(@D)

$(H)/test/report.json: $(H)/suite.yaml
	$(RUN) $(ASK) --images $(H)/test.csv --seed $(SEED) --overwrite --out $(@D)

$(H)/distracted/report.json: $(H)/suite.yaml
	$(RUN) build-vqa --images $(HDATA)/tasks/garment-kind-choice.jsonl --distract class_name \
	  --seed $(SEED) --overwrite --out $(@D)

$(SHARES:%=$(H)/mix-%/report.json): $(H)/mix-%/report.json: $(H)/train/report.json
	$(RUN) mix-data --source target=$(H)/train/samples.jsonl:$$(awk 'BEGIN { print 1 - $* }') \
	  --source general=$(HDATA)/general.jsonl:$* --total $(HYBRID_TOTAL) \
	  --seed $(SEED) --overwrite --out $(@D)

$(SHARES:%=$(H)/share-%/report.json): $(H)/share-%/report.json: \
		$(H)/mix-%/report.json hybrid/finetune.yaml $(BASE)/model.safetensors
	$(RUN) finetune --recipe hybrid/finetune.yaml $(HYBRID_STEPS) --model $(BASE) \
	  --samples $(H)/mix-$*/samples.jsonl --seed $(SEED) --overwrite --out $(@D)

$(H)/eval/report.json: $(SHARES:%=$(H)/share-%/report.json) $(H)/test/report.json \
		$(H)/distracted/report.json
	$(RUN) eval-matrix --suite $(H)/suite.yaml --base $(BASE) \
	  $(foreach share,$(SHARES),--checkpoint $(H)/share-$(share)) \
	  --batch 64 $(HYBRID_LIMIT) --seed $(SEED) --overwrite --out $(@D)
