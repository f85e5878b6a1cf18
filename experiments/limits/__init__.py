"""What limits the chain, by intervention: service demands, elasticities, and the footprint of the instrument."""
