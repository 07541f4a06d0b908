"""Made ``small_sums`` beside this file, with TensorFlow 2.21 and tensorflow-datasets 4.9.10; neither TensorFlow nor this is
needed to read it: ``python make.py FOLDER``."""

import sys

import numpy as np
import tensorflow_datasets as tfds

SUMS = {"train": [(7, 5), (12, 30), (3, 3), (40, 2), (9, 16), (21, 8)], "test": [(1, 1), (50, 5), (6, 10)]}
TEXT = tfds.features.Text()
FEATURES = {
    "question": TEXT,
    "answer": TEXT,
    "completion": TEXT,
    "level": np.int64,
    "share": np.float32,
    "easy": np.bool_,
    "terms": tfds.features.Sequence(np.int64),
    "messages": tfds.features.Sequence({"role": TEXT, "content": TEXT}),
}


class SmallSums(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="apples", version="1.0.0", description="Sums of apples.")]

    def _info(self):
        said = "Sums of two numbers, written for r1jax's tests."
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(FEATURES), description=said)

    def _split_generators(self, manager):
        return {name: self._generate_examples(sums) for name, sums in SUMS.items()}

    def _generate_examples(self, sums):
        for level, (a, b) in enumerate(sums):
            turns = [{"role": "user", "content": f"{a}+{b}?"}, {"role": "assistant", "content": f"{a + b}"}]
            yield (
                level,
                {
                    "question": f"Léa has {a} apples and gets {b}. How many?",
                    "answer": str(a + b),
                    "completion": f" {a} and {b} make {a + b}.",
                    "level": level,
                    "share": a / (a + b),
                    "easy": a + b < 20,
                    "terms": [a, b],
                    "messages": turns,
                },
            )


if __name__ == "__main__":
    SmallSums(data_dir=sys.argv[1], config="apples", file_format="array_record").download_and_prepare()
