"""Names that are known to be harmless when a model is loaded, by the libraries they are of.

Whatever a pickle names it may also call, with any arguments. So functions are listed one by one;
of a module in the lists of classes only names written as classes are (`_?[A-Z]…`, no dots) are
taken. Left out on purpose, though true models hold them: `scipy.stats` distributions (their state
is run as source), `numpy…_ufunc_reconstruct` (imports anything), `builtins.getattr`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kfp_bento.runtime.scan.values import Name


def _names(module: str, names: str) -> set[str]:
    return {f"{module}.{name}" for name in names.split()}


_UFUNCS = (
    "abs absolute acos acosh add arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh "
    "atan atan2 atanh bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not "
    "bitwise_or bitwise_right_shift bitwise_xor cbrt ceil conj conjugate copysign cos cosh deg2rad "
    "degrees divide divmod equal exp exp2 expm1 fabs float_power floor floor_divide fmax fmin fmod "
    "frexp gcd greater greater_equal heaviside hypot invert isfinite isinf isnan isnat lcm ldexp "
    "left_shift less less_equal log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not "
    "logical_or logical_xor matmul matvec maximum minimum mod modf multiply negative nextafter "
    "not_equal positive pow power rad2deg radians reciprocal remainder right_shift rint sign "
    "signbit sin sinh spacing sqrt square subtract tan tanh true_divide trunc vecdot vecmat"
)
_NUMPY_TYPES = (
    "dtype ndarray bool bool_ int8 int16 int32 int64 intc intp longlong uint8 uint16 uint32 uint64 "
    "uintc uintp ulonglong float16 float32 float64 longdouble complex64 complex128 clongdouble "
    "str_ bytes_ object_ void datetime64 timedelta64 number integer floating"
)
_NUMPY = (
    _names("numpy", f"{_NUMPY_TYPES} {_UFUNCS}")
    | _names("numpy", "mean median nanmean nanmedian average asarray array ravel")
    | {
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in (
            *("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer"),
            "_internal._convert_to_stringdtype_kwargs",
        )
    }
    | _names("numpy.ma.core", "MaskedArray _mareconstruct")
    | _names("numpy.ma", "MaskedArray")
    | _names("numpy.random._pickle", "__bit_generator_ctor __generator_ctor __randomstate_ctor")
    | _names("numpy.random._mt19937", "MT19937")
    | _names("numpy.random._pcg64", "PCG64 PCG64DXSM")
    | _names("numpy.random._philox", "Philox")
    | _names("numpy.random._sfc64", "SFC64")
    | _names("numpy.random", "MT19937 PCG64 PCG64DXSM Philox SFC64 RandomState Generator")
    | _names("numpy.random.mtrand", "RandomState")
    | _names("numpy.random._generator", "Generator")
    | _names("numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence")
    | _names("numpy.random._bit_generator", "SeedSequence __pyx_unpickle_SeedSequence")
    | {
        f"numpy.dtypes.{kind}DType"
        for kind in (
            *("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
            *("Float16", "Float32", "Float64", "LongDouble", "Complex64", "Complex128", "Object"),
            *("Str", "Bytes", "Void", "DateTime64", "TimeDelta64"),
        )
    }
)
_PYTHON = (
    _names(
        "builtins",
        "set frozenset bytearray bytes complex list dict tuple int float bool object slice range "
        "str type NoneType Ellipsis NotImplemented",
    )
    | _names("copyreg", "_reconstructor __newobj__ __newobj_ex__")
    | _names("collections", "OrderedDict defaultdict deque Counter")
    | _names("datetime", "date datetime time timedelta timezone")
    | _names("zoneinfo", "ZoneInfo ZoneInfo._unpickle")
    | _names("decimal", "Decimal")
    | _names("fractions", "Fraction")
    | _names("uuid", "UUID SafeUUID")
    | _names("pathlib", "PurePosixPath PosixPath PureWindowsPath WindowsPath Path PurePath")
    | _names("pathlib._local", "PurePosixPath PosixPath PureWindowsPath WindowsPath Path PurePath")
    | _names("types", "SimpleNamespace")
    | _names("functools", "partial")
    | _names("_codecs", "encode")
    | _names("joblib.numpy_pickle", "NumpyArrayWrapper")
    | _names("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper")
)
_PANDAS = (
    _names(
        "pandas",
        "DataFrame Series Index RangeIndex MultiIndex DatetimeIndex TimedeltaIndex PeriodIndex "
        "IntervalIndex CategoricalIndex Timestamp Timedelta Period Interval Categorical "
        "CategoricalDtype StringDtype BooleanDtype DatetimeTZDtype PeriodDtype IntervalDtype "
        "SparseDtype Int8Dtype Int16Dtype Int32Dtype Int64Dtype UInt8Dtype UInt16Dtype "
        "UInt32Dtype UInt64Dtype Float32Dtype Float64Dtype ArrowDtype Flags",
    )
    | _names("pandas._libs.internals", "_unpickle_block BlockPlacement")
    | _names("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked NDArrayBacked")
    | _names("pandas._libs.tslibs.timestamps", "_unpickle_timestamp Timestamp")
    | _names("pandas._libs.tslibs.timedeltas", "_timedelta_unpickle Timedelta")
    | _names("pandas._libs.tslibs.nattype", "_nat_unpickle NaTType")
    | _names("pandas._libs.tslibs.period", "Period PeriodMixin")
    | _names("pandas._libs.interval", "Interval")
    | _names("pandas._libs.missing", "NAType")
    | _names("pandas.core.indexes.base", "_new_Index")
    | _names("pandas.core.indexes.datetimes", "_new_DatetimeIndex")
    | _names("pandas.core.indexes.period", "_new_PeriodIndex")
    | _names("pandas.core.internals.blocks", "new_block")
    | _names("pandas._libs.tslibs.offsets", "Day Hour Minute Second MonthEnd MonthBegin YearEnd")
    | _names("pandas._libs.tslibs.dtypes", "PeriodDtypeBase")
    # pandas 3 keeps texts in Arrow's arrays where it can.
    | _names(
        "pyarrow.lib",
        "_restore_array py_buffer type_for_alias chunked_array field list_ struct dictionary "
        "timestamp duration time32 time64 decimal128 decimal256",
    )
    | _names("pandas", "NA")
)
_TORCH = (
    _names(
        "torch._utils",
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
        "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor "
        "_rebuild_sparse_csr_tensor _rebuild_nested_tensor _rebuild_meta_tensor_no_storage "
        "_rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor",
    )
    | _names(
        "torch",
        "FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage "
        "ShortStorage CharStorage ByteStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage "
        "QInt8Storage QUInt8Storage QInt32Storage Size Tensor device dtype float32 float64 "
        "float16 bfloat16 int8 int16 int32 int64 uint8 bool complex64 complex128 strided "
        "contiguous_format channels_last per_tensor_affine per_channel_affine qint8 quint8 qint32 "
        "torch.Tensor",
    )
    | _names("torch.storage", "TypedStorage UntypedStorage _load_from_bytes")
    | _names("torch.nn.parameter", "Parameter Buffer UninitializedParameter")
    | _names("torch._tensor", "Tensor _rebuild_from_type_v2")
    | _names("torch.serialization", "_get_layout")
    | _names("torch.nn.functional", "relu gelu silu elu leaky_relu softplus tanh sigmoid softmax")
)
# As scikit-learn before 1.7 calls sklearn._loss._loss in what it writes.
_LOSSES = (
    "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss "
    "CyHalfPoissonLoss CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss "
    "CyPinballLoss"
)
_SKLEARN = (
    _names("_loss", _LOSSES)
    | {f"_loss.{'__pyx_unpickle_' + name}" for name in _LOSSES.split()}
    | _names("sklearn.metrics._dist_metrics", "newObj")
    | _names("sklearn.neighbors._kd_tree", "newObj")
    | _names("sklearn.neighbors._ball_tree", "newObj")
    | _names("sklearn.neighbors._quad_tree", "newObj")
    | _names("sklearn.cluster._kmeans", "_kmeans_single_lloyd _kmeans_single_elkan")
    | _names(
        "sklearn.feature_selection._univariate_selection", "chi2 f_classif f_oneway f_regression"
    )
    | _names("sklearn.feature_selection._mutual_info", "mutual_info_classif mutual_info_regression")
    | _names("sklearn.metrics._scorer", "_passthrough_scorer")
    | _names(
        "sklearn.metrics._classification",
        "accuracy_score balanced_accuracy_score f1_score precision_score recall_score log_loss "
        "brier_score_loss matthews_corrcoef jaccard_score cohen_kappa_score fbeta_score",
    )
    | _names("sklearn.metrics._ranking", "roc_auc_score average_precision_score")
    | _names(
        "sklearn.metrics._regression",
        "r2_score mean_squared_error mean_absolute_error root_mean_squared_error "
        "median_absolute_error max_error mean_squared_log_error explained_variance_score",
    )
    | _names("sklearn.utils._bunch", "Bunch")
    | _names("sklearn.utils", "Bunch")
    | _names("sklearn.utils._metadata_requests", "MetadataRequest MethodMetadataRequest")
    | _names("sklearn.utils.deprecation", "DeprecationDict")
    | _names("scipy._lib.array_api_compat.numpy._aliases", "asarray")
    | _names("scipy.interpolate._bsplines", "BSpline")
    | _names("scipy.interpolate._interpolate", "interp1d")
    | _names("scipy.interpolate.interpolate", "interp1d")
    | {
        f"scipy.sparse.{module}{kind}_{shape}"
        for kind in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
        for shape in ("matrix", "array")
        for module in ("", f"_{kind}.", f"{kind}.")
    }
    | _names("scipy.special", "expit logit xlogy gamma gammaln erf")
    | _names("scipy.special._ufuncs", "expit logit xlogy gamma gammaln erf")
    | {
        f"sklearn.{package}.{'__pyx_unpickle_' + name}"
        for package, names in {
            "linear_model._sgd_fast": (
                *("Hinge", "Log", "SquaredLoss", "Huber", "ModifiedHuber", "SquaredHinge"),
                *("EpsilonInsensitive", "SquaredEpsilonInsensitive", "LossFunction"),
                *("Classification", "Regression"),
            ),
            "metrics._dist_metrics": ("DistanceMetric",),
            "_loss._loss": ("CyHalfMultinomialLoss",),  # of HistGradientBoostingClassifier
        }.items()
        for name in names
    }
)

_BOOSTERS = (
    _names("xgboost.core", "Booster")
    | _names("lightgbm.basic", "Booster")
    | _names("catboost.core", "CatBoost CatBoostClassifier CatBoostRegressor CatBoostRanker")
)

_EXACT: dict[str, set[str]] = {
    "": _PYTHON | _NUMPY | _PANDAS,
    "sklearn": _SKLEARN | _BOOSTERS,
    "boosters": _BOOSTERS,
    "pytorch": _TORCH,
    "statsmodels": _names("patsy.missing", "NAAction")
    | _names("patsy.desc", "INTERCEPT Term ModelDesc")
    | _names("pandas.tseries.offsets", "Day MonthEnd")
    | _names("scipy.optimize._optimize", "OptimizeResult")
    | _names("scipy.optimize.optimize", "OptimizeResult")
    | _names("scipy.optimize._lbfgsb_py", "LbfgsInvHessProduct")
    | {
        f"statsmodels.tsa.statespace.{module}.{kind}{name}"
        for module, name in (
            *(("_initialization", "Initialization"), ("_representation", "Statespace")),
            *(("_kalman_filter", "KalmanFilter"), ("_kalman_smoother", "KalmanSmoother")),
            ("_simulation_smoother", "SimulationSmoother"),
        )
        for kind in "sdcz"
    },
    "pyfunc": {
        f"mlflow.pyfunc.model.{name}"
        for name in (
            *("PythonModel", "PythonModelContext", "ChatModel", "ChatAgent", "ResponsesAgent"),
            "_FunctionPythonModel",
        )
    }
    | _names("mlflow.models.signature", "ModelSignature _TypeHints")
    | _names("typing", "Any Optional Union")
    | _names(
        "mlflow.types.schema",
        "Schema ColSpec TensorSpec TensorInfo DataType ParamSchema ParamSpec Array Object Property "
        "Map AnyType SparkMLVector",
    ),
}
_SKLEARN_PACKAGES = (
    "_loss calibration cluster compose covariance cross_decomposition decomposition "
    "discriminant_analysis dummy ensemble feature_extraction feature_selection frozen "
    "gaussian_process impute isotonic kernel_approximation kernel_ridge linear_model manifold "
    "metrics mixture model_selection multiclass multioutput naive_bayes neighbors neural_network "
    "pipeline preprocessing random_projection semi_supervised svm tree"
)
_CLASSES: dict[str, tuple[str, ...]] = {
    "": (
        *("pandas.core.frame", "pandas.core.series", "pandas.core.indexes", "pandas.core.arrays"),
        *("pandas.core.internals.managers", "pandas.core.internals.blocks", "pandas.core.dtypes"),
        *("pandas.core.flags", "pandas.arrays"),
    ),
    "sklearn": (
        *(f"sklearn.{package}" for package in _SKLEARN_PACKAGES.split()),
        *("xgboost.sklearn", "lightgbm.sklearn", "imblearn.pipeline"),
        *("imblearn.over_sampling", "imblearn.under_sampling", "imblearn.ensemble"),
    ),
    "boosters": ("xgboost.sklearn", "lightgbm.sklearn"),
    "pytorch": (
        *("torch.nn.modules", "torch.nn.parallel.data_parallel", "torchvision.models"),
        "torchvision.ops",
    ),
    "statsmodels": (
        *("statsmodels.base", "statsmodels.discrete", "statsmodels.duration"),
        *("statsmodels.genmod", "statsmodels.iolib.table", "statsmodels.regression"),
        *("statsmodels.robust", "statsmodels.tsa", "statsmodels.tools"),
    ),
    "pmdarima": ("pmdarima.arima", "pmdarima.preprocessing", "pmdarima.pipeline"),
}
# Taken by no list of classes: what modules of the lists import for their own use.
NOT_CLASSES = frozenset(
    {"Parallel", "Memory", "Path", "Popen", "Thread", "ThreadPool", "Pool", "Template", "StringIO"}
)
REFERENCED_ONLY = frozenset({"builtins.str", "builtins.type", "builtins.object"})
"""Harmless where they are named, and not where they are called."""

_OF_FLAVORS: dict[str, tuple[str, ...]] = {
    "sklearn": ("sklearn",),
    "xgboost": ("sklearn",),
    "lightgbm": ("sklearn",),
    "catboost": ("sklearn",),
    "pytorch": ("pytorch",),
    "transformers": ("pytorch",),
    "sentence_transformers": ("pytorch",),
    "statsmodels": ("statsmodels",),
    "pmdarima": ("statsmodels", "pmdarima", "sklearn"),
}


def families(flavors: Iterable[str]) -> tuple[str, ...]:
    """Give the lists that count for a model of some flavors; a pyfunc alone may hold anything."""
    own = {family for flavor in flavors for family in _OF_FLAVORS.get(flavor, ())}
    every = sorted(_EXACT.keys() | _CLASSES.keys())
    return ("", *sorted(own)) if own else tuple(every)


def is_listed(name: Name, lists: Iterable[str]) -> bool:
    """Tell whether a name is on one of some lists."""
    text = str(name)
    classes = name.is_class and name.name not in NOT_CLASSES
    for one in lists:
        if text in _EXACT.get(one, ()):
            return True
        if classes and any(
            name.module == prefix or name.module.startswith(f"{prefix}.")
            for prefix in _CLASSES.get(one, ())
        ):
            return True
    # TorchScript's own classes: no module of Python has such a name.
    return "pytorch" in lists and name.module.partition(".")[0] == "__torch__"
