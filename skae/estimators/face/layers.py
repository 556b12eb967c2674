"""The learned parameters of one layer, by the names that scikit-learn gives such things."""


class LayerAttributes:
    """Reads ``components_`` and its companions from ``weights_``."""

    @property
    def components_(self):
        """Weights of the encoder, where there is one layer."""
        return self._one_layer("weight_0")

    @property
    def decoder_components_(self):
        """Weights of the decoder, where there is one layer; those of the encoder if tied."""
        untied = "decoder_weight_0" in self.__dict__.get("weights_", ())
        return self._one_layer("decoder_weight_0" if untied else "weight_0")

    @property
    def intercept_hidden_(self):
        """Biases of the code, where there is one layer."""
        return self._one_layer("hidden_bias_0")

    @property
    def intercept_visible_(self):
        """Biases of the output, where there is one layer."""
        return self._one_layer("visible_bias_0")

    def _one_layer(self, name):
        weights = self.__dict__.get("weights_")
        if weights is None:
            reason = "is not fitted"
        elif "weight_1" in weights:
            reason = "has hidden layers; see weights_"
        elif name not in weights:
            reason = f"has no {name} in its weights_"
        else:
            return weights[name]
        raise AttributeError(f"this {type(self).__name__} {reason}")

    @property
    def _n_features_out(self):
        # The fitted code's size, whatever n_components has become since.
        weights = [self.weights_[name] for name in self.weights_ if name.startswith("weight_")]
        return len(weights[-1])
