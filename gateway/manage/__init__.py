"""The doors through which a gateway is managed, and the one table of requests behind them."""
