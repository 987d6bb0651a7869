package spec

// Dataset is a table, where it is, and how to read it. The features are what
// the network sees, the label is what it learns to predict; every other column
// is a feature unless features are listed.
//
//	dataset:
//	  source: {configMap: {name: iris, key: iris.csv}}
//	  label: species
//	  validationFraction: 0.2
//	  scaling: Standard
//
// +kubebuilder:validation:XValidation:rule="has(self.label) != has(self.labels)",message="the dataset needs a label: set label to the column to predict, or labels to the columns of a one-hot label, and not both"
type Dataset struct {
	// source is where the bytes are. Example: {configMap: {name: iris, key:
	// iris.csv}}.
	//
	// +required
	Source DatasetSource `json:"source"`

	// format is how the bytes are to be read. CSV (the default) may be
	// compressed with gzip; that is recognized from the bytes themselves. NPY and
	// NPZ are NumPy's, with columns named "0", "1", "2" and so on in a NPY file,
	// and by the names of the arrays in a NPZ file. Example: Parquet.
	//
	// +kubebuilder:default=CSV
	// +optional
	Format Format `json:"format,omitempty"`

	// header says whether the first row of a CSV file names the columns.
	// Default: true. Without a header, columns are named "0", "1", "2" and so on.
	//
	// +kubebuilder:default=true
	// +optional
	Header *bool `json:"header,omitempty"`

	// label is the column to predict, by its name in the header, or by its
	// position counted from 0. Example: species.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Label string `json:"label,omitempty"`

	// labels, instead of label, are the columns of a one-hot label: one for each
	// class, in the order of the last layer's units, which is 1 in the rows of that
	// class and 0 in all others. Of a NPZ file, an array of several columns may be
	// named as a whole. Example: [setosa, versicolor, virginica].
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	// +optional
	Labels []string `json:"labels,omitempty"`

	// features are the columns to predict from, by name or position, in the
	// order in which the network sees them. Default: every column but the label,
	// in the order of the file.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	// +optional
	Features []string `json:"features,omitempty"`

	// oneHot are the features whose values name categories, as text or as codes.
	// Each becomes a column for each of its values, named "color=red", which is 1
	// in the rows that have that value and 0 in the others; these columns are the
	// model's inputs. A feature may have 1000 different values at most. Default:
	// none; features that hold text are refused. Example: [color].
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	// +optional
	OneHot []string `json:"oneHot,omitempty"`

	// missing says what to do about rows with missing values. A value is missing
	// when its cell is empty, null, NaN, NA, N/A or ?. Default: the dataset is
	// refused, with row and column of the first. Example: {policy: Mean}.
	//
	// +optional
	Missing *Missing `json:"missing,omitempty"`

	// validationFraction is the part of the rows that is kept out of training
	// and only measured, at least 0 (the default) and below 1. The rows are drawn
	// at random with the training's seed; for classes, in the same proportion
	// from each class. Example: 0.2.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	ValidationFraction float64 `json:"validationFraction,omitempty"`

	// scaling is applied to the features before the network sees them. None (the
	// default) leaves them as they are, Standard brings each column to mean 0 and
	// standard deviation 1, MinMax to the range from 0 to 1. It is fitted on the
	// training rows and stored in the model, so whoever asks for predictions
	// sends values in the dataset's own units.
	//
	// +kubebuilder:default=None
	// +optional
	Scaling Scaling `json:"scaling,omitempty"`
}

// DatasetSource is where a dataset's bytes are: exactly one of its fields.
//
// +kubebuilder:validation:XValidation:rule="[has(self.configMap), has(self.secret), has(self.persistentVolumeClaim), has(self.https), has(self.s3)].exists_one(given, given)",message="name a source for the dataset, exactly one of configMap, secret, persistentVolumeClaim, https and s3, for example configMap: {name: iris, key: iris.csv}"
type DatasetSource struct {
	// configMap names a ConfigMap in the TrainingJob's namespace and one of its
	// keys (in data or, for compressed files, in binaryData). A ConfigMap holds 1
	// MiB at most. Make one with: kubectl create configmap iris
	// --from-file=iris.csv.
	//
	// +optional
	ConfigMap *KeyReference `json:"configMap,omitempty"`

	// secret names a Secret in the TrainingJob's namespace and one of its keys,
	// for small tables that not everyone may read. A Secret holds 1 MiB at most.
	// Make one with: kubectl create secret generic patients
	// --from-file=patients.csv.
	//
	// +optional
	Secret *KeyReference `json:"secret,omitempty"`

	// persistentVolumeClaim names a file on a volume. It is mounted read-only.
	// Example: {claimName: measurements, path: 2026/july.csv.gz}.
	//
	// +optional
	PersistentVolumeClaim *ClaimReference `json:"persistentVolumeClaim,omitempty"`

	// https names a file on a web server. Example: {url:
	// https://data.example.com/iris.csv}.
	//
	// +optional
	HTTPS *HTTPSSource `json:"https,omitempty"`

	// s3 names an object in a bucket, at Amazon or at any other server that
	// speaks its protocol. Example: {bucket: measurements, key: 2026/july.csv.gz,
	// region: eu-central-1, credentialsSecret: {name: s3}}.
	//
	// +optional
	S3 *S3Source `json:"s3,omitempty"`
}

// KeyReference names one key of an object in the same namespace.
type KeyReference struct {
	// name of the object.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`

	// key in the object's data. Example: iris.csv.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Key string `json:"key"`
}

// ClaimReference names one file on the volume of a PersistentVolumeClaim of the
// same namespace.
//
// +kubebuilder:validation:XValidation:rule="!self.path.startsWith('/') && !self.path.split('/').exists(part, part == '..')",message="path is counted from the volume's root and stays inside it: write it without a leading / and without .. in it, for example 2026/july.csv"
type ClaimReference struct {
	// claimName is the name of a PersistentVolumeClaim in the same namespace.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	ClaimName string `json:"claimName"`

	// path of the file, from the volume's root. Example: 2026/july.csv.gz, or of a
	// model production/iris.onnx.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +required
	Path string `json:"path"`
}

// HTTPSSource names a file on a web server.
type HTTPSSource struct {
	// url of the file. Example: https://data.example.com/iris.csv, or of a model
	// https://models.example.com/iris.onnx.
	//
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.startsWith('https://') && isURL(self) && url(self).getHost() != ''",message="url must be a whole URL that starts with https://, for example https://data.example.com/iris.csv"
	// +kubebuilder:validation:XValidation:rule="!self.contains('@') || self.indexOf('@') > self.indexOf('/', 8) && self.indexOf('/', 8) >= 0",message="leave user and password out of the url; put them into a Secret, and name it in credentialsSecret"
	// +required
	URL string `json:"url"`

	// sha256 of the file, as 64 hexadecimal digits. A file with another one is
	// refused. Default: any is taken. Print it with: sha256sum FILE.
	//
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	// +optional
	SHA256 string `json:"sha256,omitempty"`

	// credentialsSecret names a Secret in the same namespace, with a key token
	// (sent as a bearer token), or with the keys username and password (sent as
	// basic authentication). Its key ca.crt, with or without these, is the
	// certificate of an authority to trust beside the public ones. Example: {name:
	// data-server}.
	//
	// +optional
	CredentialsSecret *SecretName `json:"credentialsSecret,omitempty"`
}

// S3Source names an object in a bucket.
type S3Source struct {
	// bucket that holds the object. Example: measurements.
	//
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	// +required
	Bucket string `json:"bucket"`

	// key is the object's name in the bucket. Example: 2026/july.csv.gz, or of a
	// model production/iris.onnx.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +required
	Key string `json:"key"`

	// endpoint is the server, as host or host:port. Default: Amazon's. Example:
	// minio.storage:9000.
	//
	// +kubebuilder:default=s3.amazonaws.com
	// +kubebuilder:validation:MaxLength=261
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9.-]+(:[0-9]{1,5})?$`
	// +optional
	Endpoint string `json:"endpoint,omitempty"`

	// region of the bucket. Default: us-east-1, which most servers other than
	// Amazon's take. Example: eu-central-1.
	//
	// +kubebuilder:default=us-east-1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Region string `json:"region,omitempty"`

	// credentialsSecret names a Secret in the same namespace with the keys
	// accessKey and secretKey, and, if the server's certificate is of an authority
	// that isn't public, that one's certificate under the key ca.crt. Without a
	// Secret, the object has to be public.
	// Example: {name: s3}. Make one with: kubectl create secret generic s3
	// --from-literal=accessKey=... --from-literal=secretKey=....
	//
	// +optional
	CredentialsSecret *SecretName `json:"credentialsSecret,omitempty"`

	// plainHTTP is for servers that don't speak TLS. Default: false.
	//
	// +optional
	PlainHTTP bool `json:"plainHTTP,omitempty"`
}

// SecretName names a Secret in the same namespace.
type SecretName struct {
	// name of the Secret.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
}

// CredentialPrefix begins the environment variables in which a trainer finds
// the keys of a source's credentialsSecret: TRAINYARD_SOURCE_token and so on.
// Nothing secret is in [Train].
const CredentialPrefix = "TRAINYARD_SOURCE_"

// Keys of a credentialsSecret.
const (
	TokenKey     = "token"
	UsernameKey  = "username"
	PasswordKey  = "password"
	AccessKeyKey = "accessKey"
	SecretKeyKey = "secretKey"
	AuthorityKey = "ca.crt"
)

// Missing says what to do about rows with missing values.
//
// +kubebuilder:validation:XValidation:rule="!has(self.value) || self.policy == 'Constant'",message="value is for policy: Constant; leave it out, or use policy: Constant"
type Missing struct {
	// policy for missing values. DropRow leaves rows that miss a feature or the
	// label out. Mean puts the mean of the column's training rows in, and
	// Constant puts value in; a row without a label is refused by both.
	//
	// +required
	Policy MissingPolicy `json:"policy"`

	// value that policy Constant puts in. Default: 0.
	//
	// +optional
	Value float64 `json:"value,omitempty"`
}

// MissingPolicy names what to do about missing values.
//
// +kubebuilder:validation:Enum=DropRow;Mean;Constant
type MissingPolicy string

// The policies for missing values.
const (
	DropRow      MissingPolicy = "DropRow"
	FillMean     MissingPolicy = "Mean"
	FillConstant MissingPolicy = "Constant"
)

// Format names how a dataset's bytes are read.
//
// +kubebuilder:validation:Enum=CSV;NPY;NPZ;Parquet
type Format string

// The formats.
const (
	CSV     Format = "CSV"
	NPY     Format = "NPY"
	NPZ     Format = "NPZ"
	Parquet Format = "Parquet"
)

// Scaling names how features are scaled.
//
// +kubebuilder:validation:Enum=None;Standard;MinMax
type Scaling string

// The scalings.
const (
	NoScaling       Scaling = "None"
	StandardScaling Scaling = "Standard"
	MinMaxScaling   Scaling = "MinMax"
)
