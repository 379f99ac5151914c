"""The small encoder that the demonstrations train instead of a pretrained one, which would have to be fetched."""


def demo_encoder():
    """DistilHuBERT's shape, a hundred times smaller, with random weights."""
    from transformers import HubertConfig

    return HubertConfig(
        conv_dim=(8, 16, 32, 64, 64, 64, 64),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=96,
        # Five times the usual spread: a small network without pretraining would hardly start with less.
        initializer_range=0.1,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
    )
