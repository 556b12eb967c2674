"""The learned parameters of one layer, by the names that scikit-learn gives such things."""


class LayerAttributes:
    """Reads ``components_`` and its companions from ``weights_``."""

    @property
    def components_(self):
        """Weights of the encoder, where there is one layer."""
        return self._one_layer("weight_0")

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
        if weights is None or "weight_1" in weights:
            reason = "is not fitted" if weights is None else "has hidden layers; see weights_"
            raise AttributeError(f"this {type(self).__name__} {reason}")
        return weights[name]

    @property
    def _n_features_out(self):
        # The fitted code's size, whatever n_components has become since.
        biases = [self.weights_[name] for name in self.weights_ if "hidden_bias" in name]
        return len(biases[-1])
