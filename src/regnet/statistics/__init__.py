"""Statistics of classifiers: metrics, agreement, conformal sets, intervals by resampling."""
