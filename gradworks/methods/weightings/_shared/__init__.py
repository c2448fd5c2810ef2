"""Ways to compute u_i = <clean gradient, gradient of example i>. One file is one back-end of `reweight`."""
