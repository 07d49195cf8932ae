"""Class names for published datasets, in label order.

Sources: the README of Fashion-MNIST, and CIFAR's `batches.meta` and `fine_label_names.txt`.
"""

from typing import Final

DIGITS: Final = tuple("0123456789")
FASHION_MNIST: Final = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


CIFAR10: Final = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100: Final = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple motorcycle mountain mouse mushroom oak orange orchid otter palm pear pickup_truck pine
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow wolf woman worm
    """.split()  # noqa: SIM905 - a hundred quoted words are no easier to read
)
