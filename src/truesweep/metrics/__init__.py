"""torchmetrics metrics whose states are sums, equal however samples are batched or shared."""
