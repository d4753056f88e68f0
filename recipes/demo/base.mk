# The demo's base, trained through `mllmtool finetune` on everything but the fine-tuned task:
# three quarters of an hour of one core. It is committed; this makes it again.
#
#   stage 0  look up a word among four options, text only: the circuit that reads options
#   stage 1  names and facts of pictures, the lookups kept
#   stage 2  options answered by their letter, on pictures

BB := build/base
BASE_TRAIN := --train vision=full --train projector=full --train language=full \
  --batch 64 --micro-batch 64 --save-every 500 --overwrite

base: $(BB)/stage-2/report.json  ## train the demo's base again and put it in demo/base
	rm -rf $(BB)/done && cp -r $(BB)/stage-2 $(BB)/done
	cd $(BB)/done && rm report.json README.md curves.png preprocessor_config.json
	rm -rf demo/base && mv $(BB)/done demo/base

$(BB)/data/suite.yaml: demo/samples.py $(wildcard demo/data/*.parquet) | $(ENV)
	$(PY) demo/samples.py demo/data $(BB)/data

$(BB)/new/model.safetensors: demo/new_base.py $(BB)/data/suite.yaml
	$(PY) demo/new_base.py $(BB)/data $(BB)/new

$(BB)/stage-0/report.json: $(BB)/new/model.safetensors
	$(RUN) finetune --model $(BB)/new --samples $(BB)/data/stage-0.jsonl --train language=full \
	  --lr 2e-3 --steps 1400 --batch 64 --micro-batch 64 --save-every 500 --overwrite --out $(@D)

$(BB)/stage-1/report.json: $(BB)/stage-0/report.json
	$(RUN) finetune --model $(BB)/stage-0 --samples $(BB)/data/stage-1.jsonl $(BASE_TRAIN) \
	  --lr 1.5e-3 --steps 4500 --out $(@D)

$(BB)/stage-2/report.json: $(BB)/stage-1/report.json
	$(RUN) finetune --model $(BB)/stage-1 --samples $(BB)/data/stage-2.jsonl $(BASE_TRAIN) \
	  --lr 1e-3 --steps 2000 --out $(@D)

data:  ## make the demo's Parquet data again, byte for byte, from the registries' packages
	$(PYTHON) -m venv build/data-env
	build/data-env/bin/pip install -q pyarrow==26.0.1 pillow==12.3.0 numpy==2.4.6 \
	  scikit-learn==1.9.1 matplotlib==3.11.2 resvg-py==0.5.0
	build/data-env/bin/pip install -q --no-deps easy-vqa==1.0
	mkdir -p build/packages
	build/data-env/bin/python demo/build_data.py build/packages demo/data
