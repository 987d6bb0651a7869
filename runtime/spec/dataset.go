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
type Dataset struct {
	// source is where the bytes are. Example: {configMap: {name: iris, key:
	// iris.csv}}.
	//
	// +required
	Source DatasetSource `json:"source"`

	// format is how the bytes are to be read. CSV (the default) may be
	// compressed with gzip; that is recognized from the bytes themselves.
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
	// +required
	Label string `json:"label"`

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
// +kubebuilder:validation:XValidation:rule="has(self.configMap)",message="name a source for the dataset, for example configMap: {name: iris, key: iris.csv}"
type DatasetSource struct {
	// configMap names a ConfigMap in the TrainingJob's namespace and one of its
	// keys (in data or, for compressed files, in binaryData). A ConfigMap holds 1
	// MiB at most. Make one with: kubectl create configmap iris
	// --from-file=iris.csv.
	//
	// +optional
	ConfigMap *KeyReference `json:"configMap,omitempty"`
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

// Format names how a dataset's bytes are read.
//
// +kubebuilder:validation:Enum=CSV
type Format string

// The formats.
const (
	CSV Format = "CSV"
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
